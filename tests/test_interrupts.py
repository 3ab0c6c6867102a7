"""Fits that fail or are interrupted: the old fit stays whole, or the estimator is not fitted."""

import copy
import inspect
import os
import signal
import threading
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from skdyn import ModeMatcher, preprocessing
from skdyn._callbacks import StepWatcher
from skdyn.analysis import SessionFeatures
from skdyn.nems import Solver
from tests.torture.models import dynemo, nems, recording

X, Y = recording()

TRANSFORMERS = {
    name: getattr(preprocessing, name)()
    for name in preprocessing.__all__
    if inspect.isclass(getattr(preprocessing, name))
}
TRANSFORMERS["BandpassFilter"].set_params(low=0.1, high=0.3)
TRANSFORMERS["NotchFilter"].set_params(frequency=0.2, width=0.05)
ESTIMATORS = {
    **TRANSFORMERS,
    "DyNeMoEstimator": dynemo(),
    "NEMSRegressor": nems(),
    "ModeMatcher": ModeMatcher(reference=X[:, ::-1]),
    "SessionFeatures": SessionFeatures(dynemo(), "mean"),
}


def fit(estimator, X=X, y=Y):
    return estimator.fit(X, y) if "NEMS" in type(estimator).__name__ else estimator.fit(X)


def use(estimator, X=X):
    for name in ("transform", "predict"):
        if hasattr(estimator, name):
            return getattr(estimator, name)(X)
    return estimator.segments(X) if hasattr(estimator, "segments") else estimator.is_bad_


def state(estimator):
    """All fitted attributes, as text that shows every bit."""
    return {
        name: repr(value) if not isinstance(value, np.ndarray) else value.tobytes()
        for name, value in vars(estimator).items()
        if name.endswith("_")
    }


def bad_inputs():
    wide = np.column_stack([X, X])
    return {
        "text": np.full(wide.shape, "x"),
        "infinite": np.where(wide > 2, np.inf, wide),
        "empty": wide[:0],
        "late": _FailsLate(wide),
    }


class _FailsLate:
    """An array of another width with readable columns, which fails soon after."""

    def __init__(self, array):
        self.array, self.shape, self.ndim = array, array.shape, array.ndim
        self.n_calls = 0

    def __array__(self, dtype=None, copy=None):
        self.n_calls += 1
        if self.n_calls > 1:
            raise MemoryError("no more")
        return np.full(self.shape, 1.0)  # which does not vary

    def __len__(self):
        return len(self.array)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("kind", ["text", "infinite", "empty", "late"])
@pytest.mark.filterwarnings("ignore")
def test_failed_fit_leaves_no_half_fitted_estimator(name, kind, short_search):
    bad = bad_inputs()[kind]
    estimator = clone(ESTIMATORS[name])
    try:
        fit(estimator, bad)
    except Exception:
        assert not state(estimator)
        with pytest.raises(NotFittedError):
            check_is_fitted(estimator)
    fitted = fit(clone(ESTIMATORS[name]))
    before, expected = state(fitted), use(fitted)
    try:
        fit(fitted, bad_inputs()[kind])
    except Exception:
        assert state(fitted) == before
        np.testing.assert_array_equal(use(fitted), expected)


@pytest.fixture
def interrupts():
    """Let SIGINT raise KeyboardInterrupt; background jobs of shells ignore it otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def interrupted_after(seconds):
    """Send SIGINT once, and, as a user would, again after some seconds if the block goes on.

    Python drops an interrupt that arrives while a generator is closed, such as that of `any`.
    """
    ended = threading.Event()

    def send():
        wait = seconds
        while not ended.wait(wait):
            os.kill(os.getpid(), signal.SIGINT)
            wait = 10

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            try:
                yield
                time.sleep(20)
            finally:
                ended.set()
    finally:
        thread.join()


@pytest.mark.parametrize("name", ["DyNeMoEstimator", "NEMSRegressor"])
@pytest.mark.filterwarnings("ignore")
def test_interrupt_at_any_moment_leaves_old_fit_or_none(name, short_search, interrupts):
    more = {"solver": "adam", "max_iter": 10**6, "n_iter_no_change": 10**6}
    more = {"n_epochs": 10**6} if name.startswith("D") else more
    long_one = clone(ESTIMATORS[name]).set_params(**more)
    fitted = fit(clone(ESTIMATORS[name]))
    before = state(fitted)
    for seconds in (0.02, 0.1, 0.3, 0.6):
        for estimator in (clone(long_one), copy.deepcopy(fitted).set_params(**more)):
            was = state(estimator)
            with interrupted_after(seconds):
                fit(estimator)
            assert state(estimator) == was
            if was:
                assert was.keys() == before.keys()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("name", ["DyNeMoEstimator", "NEMSRegressor"])
@pytest.mark.filterwarnings("ignore")
def test_interrupt_of_no_grad_leaves_gradients_enabled(name, number, short_search, monkeypatch):
    estimator = clone(ESTIMATORS[name])
    if name.startswith("N"):
        estimator.set_params(solver="adam", max_iter=2)
    calls = []

    def interrupt(self, *error):
        calls.append(error)
        if len(calls) == number:
            raise KeyboardInterrupt  # before the mode is restored
        torch.set_grad_enabled(self.prev)

    with monkeypatch.context() as patch:
        patch.setattr(torch.no_grad, "__exit__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(estimator)
    assert torch.is_grad_enabled()
    fit(estimator)


@pytest.mark.parametrize("name", ["DyNeMoEstimator", "NEMSRegressor"])
@pytest.mark.filterwarnings("ignore")
def test_interrupt_of_a_warm_start_leaves_what_was_reached(name, short_search, monkeypatch):
    n_steps = 4

    end = StepWatcher.end

    def interrupt(self, *arguments, **named):
        found = end(self, *arguments, **named)
        if max(map(len, self.history.values())) == n_steps:
            raise KeyboardInterrupt
        return found

    longer = {"n_epochs": 6} if name.startswith("D") else {"max_iter": 50}
    estimator = clone(ESTIMATORS[name]).set_params(warm_start=True, **longer)
    with monkeypatch.context() as patch:
        patch.setattr(StepWatcher, "end", interrupt)
        with pytest.raises(KeyboardInterrupt, match=f"after {n_steps} "):
            fit(estimator)
    assert estimator.n_iter_ == n_steps
    assert np.isfinite(np.asarray(use(estimator))).all()
    assert estimator.n_features_in_ == X.shape[1]
    fit(estimator)
    assert estimator.n_iter_ >= 1


class Failing(Solver):
    """A solver that fails after it has changed the model."""

    def fit(self, objective, settings, random_state, watcher=None):
        objective.model.set_parameter_vector(objective.model.get_parameter_vector() + 1)
        raise RuntimeError("the solver failed")


def test_failed_solver_leaves_the_old_model():
    estimator = fit(nems())
    expected = estimator.predict(X)
    estimator.set_params(solver=Failing(), warm_start=True)
    with pytest.raises(RuntimeError, match="the solver failed"):
        fit(estimator)
    np.testing.assert_array_equal(estimator.predict(X), expected)


def test_warnings_of_a_fit_name_the_line_that_called_it():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nems("wc-dexp", max_iter=1).fit(X, Y)
        dynemo(inference_rnn="gru").fit(X + 3)
        nems("wc-dexp", max_iter=1).fit(X, Y)
    assert len(caught) >= 3
    assert {one.filename for one in caught} == {__file__}
