"""The torch core: likelihoods, recurrent networks and the training loop, without scikit-learn."""
