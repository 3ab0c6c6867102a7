"""The torch core: likelihoods, recurrent networks and the training loop. Knows no scikit-learn."""
