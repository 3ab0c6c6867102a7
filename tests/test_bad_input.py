"""Bad input raises an error that names the problem, and changes nothing."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skdyn import DyNeMoEstimator, NEMSRegressor, match_modes, metrics
from skdyn.analysis import mode_statistics, modes_from_mixing
from skdyn.nems import Model, Parameter
from skdyn.nems.layers import FIR, WeightChannels
from skdyn.plotting import ModesDisplay, TrainingDisplay, plot_matrices
from skdyn.preprocessing import MovingAverage, SessionScaler
from tests.torture import inputs
from tests.torture.models import dynemo, nems, recording

X, Y = recording()
MASK = np.abs(X) > 2
MASKED = np.ma.masked_array(X, MASK)


def test_drawn_bad_inputs_are_answered():
    counts, wrong = inputs.run(250, seed=11)
    assert not wrong
    assert counts["named"] > 0.5 * counts.total()
    assert counts["not named"] <= 0.01 * counts["named"]


@pytest.mark.filterwarnings("ignore")  # of fits that short
@pytest.mark.parametrize("name", inputs.ESTIMATORS)
def test_parameters_may_be_numbers_of_numpy(name, short_search):
    parameters = inputs.ESTIMATORS[name].get_params(deep=False).items()
    kinds = {bool: np.bool_, int: np.int64, float: np.float64}
    ours = {key: kinds[type(one)](one) for key, one in parameters if type(one) in kinds}
    inputs.fit(clone(inputs.ESTIMATORS[name]).set_params(**ours))


@pytest.mark.filterwarnings("ignore")
def test_long_doubles_and_huge_limits_are_taken(short_search):
    long = dynemo().fit(X.astype(np.longdouble))
    np.testing.assert_array_equal(long.means_, dynemo().fit(X).means_)
    assert np.isfinite(dynemo(gradient_clip=1e300).fit(X).covariances_).all()


def test_modes_of_sessions_of_another_scale_are_finite_or_refused():
    alpha = np.ones((len(X), 1))
    with pytest.raises(ValueError, match="X has values so large"):
        modes_from_mixing(1e160 * X, alpha, covariances=np.eye(3)[None], shrinkage=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: dynemo().fit(x),
        lambda x: dynemo().fit([X, x]),
        lambda x: nems().fit(x, Y),
        lambda x: nems().fit(X, x[:, 0]),
        lambda x: nems().fit(X, Y, sample_weight=np.abs(x[:, 0])),
        lambda x: nems().fit(X, Y, state=x[:, 0]),
        lambda x: nems().fit(X, Y, preceding=x),
        lambda x: dynemo().fit(X, sample_weight=np.abs(x[:, 0])),
        lambda x: dynemo().fit(X, sessions=x[:, 0] > 0),
        lambda x: SessionScaler().fit_transform(x),
        lambda x: Model(WeightChannels((3, 1))).fit(X, x[:, 0], verbose=0),
        lambda x: Model(WeightChannels((3, 1))).evaluate(x),
        lambda x: metrics.correlation_score(x, X),
        lambda x: metrics.alpha_correlation(X, x),
        lambda x: metrics.rv_coefficient(x, X),
        lambda x: match_modes(X, x),
        lambda x: mode_statistics(np.abs(x), sampling_frequency=10),
    ],
    ids=lambda call: f"{call.__code__.co_firstlineno}",
)
def test_masked_values_are_refused_and_unmasked_arrays_accepted(call, short_search):
    with pytest.raises(ValueError, match="masked"):
        call(MASKED)


def test_masked_array_without_masked_values_is_an_array():
    plain = nems().fit(X, Y).predict(X)
    found = nems().fit(np.ma.masked_array(X), np.ma.masked_array(Y)).predict(X)
    np.testing.assert_array_equal(found, plain)
    assert type(found) is np.ndarray


@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        (np.array(["NaT"] * 3 + ["2026-01-01"] * 197, dtype="datetime64[D]"), "3 missing labels"),
        ([None] + ["a"] * 199, "1 missing labels"),
        (3, "sessions is a int"),
        ("abc", "sessions is a str"),
        ({"a": 1}, "sessions is a dict"),
        ({1, 2}, "sessions is a set"),
        (np.full(200, np.nan), "sessions contains NaN"),
        (np.zeros(7), "sessions has 7 labels"),
    ],
    ids=str,
)
def test_labels_that_are_none_are_refused_by_name(sessions, message):
    for estimator in (dynemo(), SessionScaler()):
        with pytest.raises(ValueError, match=message):
            estimator.fit(X, sessions=sessions)


def test_labels_of_pandas_that_are_missing_are_refused():
    pandas = pytest.importorskip("pandas")
    labels = pandas.array([pandas.NA] * 3 + [1] * 197)
    with pytest.raises(ValueError, match="sessions"):
        dynemo().fit(X, sessions=labels)


@pytest.mark.parametrize("estimator", [dynemo(), nems(), SessionScaler()], ids=type)
def test_dates_and_tensors_with_gradients_are_refused(estimator):
    given = {"y": Y} if isinstance(estimator, NEMSRegressor) else {}
    with pytest.raises(TypeError, match="X holds dates"):
        estimator.fit((X * 100).astype("datetime64[s]"), **given)
    with pytest.raises(TypeError, match="X holds dates"):
        estimator.fit((X * 100).astype("timedelta64[s]"), **given)
    with pytest.raises(TypeError, match=r"X\.detach\(\)"):
        estimator.fit(torch.tensor(X, requires_grad=True), **given)


@pytest.mark.parametrize("factor", [1e160, 1e-200, 1e-310, 1e300])
@pytest.mark.filterwarnings("ignore")
def test_scales_beyond_floats_are_refused_or_finite(factor, short_search):
    with pytest.raises(ValueError, match=r"out of the range|do not vary"):
        DyNeMoEstimator(2, n_epochs=1).fit(X * factor)
    fitted = dynemo().fit(X)
    for method in (fitted.transform, fitted.score):
        try:
            assert np.isfinite(method(X * factor)).all()
        except ValueError as error:
            assert "has values" in str(error)
    scaled = SessionScaler().fit_transform(X * factor)
    assert np.isfinite(scaled).all()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: FIR((2, 1), priors=1), "priors"),
        (lambda: FIR((2, 1), bounds=[1]), "bounds"),
        (lambda: FIR((2, 1), parameters=1), "parameters"),
        (lambda: FIR((2, 1), frozen=3), "frozen"),
        (lambda: FIR((2, 1), frozen=("gain",)), "frozen.*'gain'"),
        (lambda: FIR((2, 1), values={"gain": 1}), "values.*'gain'"),
        (lambda: Parameter("a", prior=3), "prior"),
        (lambda: Parameter(3), "name"),
        (lambda: Parameter("a", zero_to_epsilon=object()), "zero_to_epsilon"),
        (lambda: Parameter("a", shape=(-1,)), "shape"),
        (lambda: Parameter("a", initial_value=np.inf), "values"),
        (lambda: TrainingDisplay(history=3), "history"),
        (lambda: ModesDisplay(covariances=np.zeros((2, 3, 4))), "covariances"),
        (lambda: ModesDisplay(covariances=np.zeros((2, 3, 3)), means=[1, 2]), "means"),
        (lambda: plot_matrices(np.eye(2), ax=3), "ax"),
        (lambda: plot_matrices(np.eye(2), fig=3), "fig"),
    ],
)
def test_arguments_of_another_type_are_named(call, name):
    with pytest.raises((TypeError, ValueError), match=name):
        call()


def test_moving_average_may_be_longer_than_anything():
    found = MovingAverage(window=1e300).fit_transform(X)
    np.testing.assert_allclose(found, np.broadcast_to(X.mean(axis=0), X.shape))
