"""Small fitted estimators of each kind, and their data."""

import warnings

import numpy as np
from sklearn.pipeline import make_pipeline

from skdyn import DyNeMoEstimator, NEMSRegressor
from skdyn.preprocessing import SessionPCA, SessionScaler


def recording(n_samples=200, n_channels=3, seed=0):
    """Return a stimulus, and a response to it."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, n_channels))
    y = np.maximum(X @ np.linspace(1, -1, n_channels) + np.roll(X[:, 0], 1), 0)
    return X, y + 0.1 * rng.standard_normal(n_samples)


def dynemo(**parameters):
    """Return an estimator that trains in a fraction of a second."""
    small = {"n_modes": 2, "sequence_length": 20, "n_epochs": 3, "n_refinement_steps": 2}
    small |= {"inference_n_units": 4, "model_n_units": 4, "random_state": 0}
    small |= {"init_method": "random"}
    return DyNeMoEstimator(**(small | parameters))


def nems(layers="wc.x2-fir.3-lvl-dexp", **parameters):
    """Return an encoding model that is fitted in a fraction of a second."""
    return NEMSRegressor(layers, **({"max_iter": 20, "random_state": 0} | parameters))


def fitted():
    """Return fitted estimators by name, and their data."""
    X, y = recording()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = {
            "dynemo": dynemo().fit(X),
            "nems": nems().fit(X, y),
            "adam": nems("wc.x1-fir.2-lvl-relu", solver="adam", max_iter=3).fit(X, y),
            "pipeline": make_pipeline(SessionScaler(), SessionPCA(2), dynemo()).fit(X),
        }
    return models, X
