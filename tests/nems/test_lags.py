"""Ranges of lags in seconds: encoders, decoders and patterns, against MNE, Ridge and formulas."""

import mne
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

from skdyn import NEMSRegressor
from skdyn.nems import Model, to_keywords
from skdyn.nems.inspection import activation_patterns, local_receptive_fields
from skdyn.nems.layers import STRF, FiniteImpulseResponse, LevelShift, RectifiedLinear
from skdyn.plotting import linear_filter

RATE = 100.0
# In seconds; the first and last lag in samples.
RANGES = {
    "causal": (0.0, 0.04, 0, 4),
    "both": (-0.02, 0.03, -2, 3),
    "future": (-0.04, 0.0, -4, 0),
    "far future": (-0.05, -0.03, -5, -3),
    "delayed": (0.02, 0.05, 2, 5),
    "rounded": (0.0149, 0.0351, 1, 4),
    "present": (0.0, 0.0, 0, 0),
}
every_range = pytest.mark.parametrize("name", RANGES)


def data(n_rows=300, n_channels=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows + 4, n_channels))
    return X[4:] + 0.8 * X[3:-1] + 0.4 * X[:-4] + 0.3


def design(X, first, last):
    """X at each lag, zeros beyond its ends: (n_rows, n_lags, n_channels)."""
    found = np.zeros((len(X), last - first + 1, X.shape[1]))
    for place, lag in enumerate(range(first, last + 1)):
        for row in range(len(X)):
            if 0 <= row - lag < len(X):
                found[row, place] = X[row - lag]
    return found


def fir(name, *sizes, **options):
    tmin, tmax, _, _ = RANGES[name]
    given = {"tmin": tmin, "tmax": tmax, "sampling_frequency": RATE}
    return FiniteImpulseResponse((None, *(sizes or (None,))), **given, **options)


@every_range
@pytest.mark.parametrize("n_rows", [1, 3, 60])
def test_a_filter_at_a_range_of_lags_is_the_sum_over_them(name, n_rows):
    _, _, first, last = RANGES[name]
    layer, X = fir(name, 3, 2), data(n_rows)
    n_lags = last - first + 1
    assert layer.shape == (n_lags, 3, 2)
    assert layer.lags.tolist() == [*range(first, last + 1)]
    assert (layer.n_past, layer.n_future) == (max(last, 0), max(-first, 0))
    layer["coefficients"] = np.random.default_rng(1).standard_normal((n_lags, 3, 2))
    expected = np.einsum("tlc,lcn->tn", design(X, first, last), layer["coefficients"].values)
    np.testing.assert_allclose(layer.evaluate(X), expected, atol=1e-12)
    if n_rows > 3:
        fields, lags = local_receptive_fields(Model([layer]), X, rows=[30])
        shown = fields[0][np.isin(lags, layer.lags)]
        np.testing.assert_allclose(shown, layer["coefficients"].values, atol=1e-12)
        assert np.abs(fields).sum() == pytest.approx(np.abs(shown).sum())
        filters, reach = linear_filter(Model([layer]), 3)
        kept = filters[np.isin(reach, layer.lags)]
        np.testing.assert_allclose(kept, layer["coefficients"].values, atol=1e-12)


@every_range
@pytest.mark.parametrize("history", ["zeros", "skip"])
def test_linear_fits_at_a_range_of_lags_are_ridge(name, history):
    _, _, first, last = RANGES[name]
    X, sessions = data(300), np.repeat([0, 1], [180, 120])
    y = np.random.default_rng(2).standard_normal((300, 2)) + np.roll(X[:, :2], 1, axis=0)
    lagged = np.concatenate([design(X[:180], first, last), design(X[180:], first, last)])
    counted = np.ones(300, dtype=bool)
    if history == "skip":
        row = np.concatenate([np.arange(180), np.arange(120)])
        length = np.repeat([180, 120], [180, 120])
        counted = (row >= max(last, 0)) & (row < length + min(first, 0))
    flat = lagged.reshape(300, -1)[counted]
    penalty = 3.0
    expected = Ridge(penalty).fit(flat, y[counted])
    layers = [fir(name, 3, 2), LevelShift((2,))]
    model = NEMSRegressor(layers, alpha=2 * penalty / counted.sum(), history=history)
    model.fit(X, y, sessions=sessions)
    assert model.n_iter_ == 1
    found = model.model_.layers[0]["coefficients"].values.reshape(-1, 2)
    np.testing.assert_allclose(found, expected.coef_.T, rtol=1e-8, atol=1e-10)
    prediction = expected.predict(lagged.reshape(300, -1))
    np.testing.assert_allclose(model.predict(X, sessions=sessions), prediction, atol=1e-9)


@every_range
def test_lags_are_those_of_mne(name):
    tmin, tmax, _, _ = RANGES[name]
    X = data(400)
    y = np.random.default_rng(2).standard_normal(400) + X[:, 0]
    theirs = mne.decoding.ReceptiveField(
        tmin, tmax, RATE, estimator=Ridge(1.0, fit_intercept=False)
    ).fit(X, y)
    ours = NEMSRegressor([fir(name)], alpha=2.0 / 400, history="zeros").fit(X, y)
    found = ours.model_.layers[0]["coefficients"].values
    # MNE's last lag is one sample beyond the rounded tmax for some ranges, never fewer.
    expected = theirs.coef_.T
    assert expected.shape == found.shape
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["both", "far future", "delayed"])
def test_nonlinear_fits_at_a_range_of_lags_find_the_filter(name):
    X = data(1500)
    truth = Model([fir(name, 3), RectifiedLinear((1,))])
    rng = np.random.default_rng(3)
    truth.layers[0]["coefficients"] = rng.standard_normal(truth.layers[0].shape)
    y = truth.predict(X)
    model = NEMSRegressor([fir(name), RectifiedLinear()], random_state=0).fit(X, y)
    found = model.model_.layers[0]["coefficients"].values
    np.testing.assert_allclose(found, truth.layers[0]["coefficients"].values, atol=0.02)
    assert model.score(X, y) > 0.999


@pytest.mark.parametrize("sizes", [(3, None), (3, 2, None), (3, 2, None, 2)])
def test_strf_at_a_range_of_lags(sizes):
    given = {"tmin": -0.02, "tmax": 0.03, "sampling_frequency": RATE}
    model, X = Model([STRF(sizes, **given)]).sample_from_priors(random_state=0), data(40)
    layer = model.layers[0]
    assert layer.shape[sizes.index(None)] == 6
    if len(sizes) == 2:
        filters = layer["coefficients"].values[..., None]
    else:
        weights, filters = (
            layer[name].values.reshape(*layer[name].shape[:2], -1)
            for name in ("wcoefficients", "coefficients")
        )
        filters = np.einsum("crn,lrn->lcn", weights, filters)
    expected = np.einsum("tlc,lcn->tn", design(X, -2, 3), filters)
    shift = layer["shift"].values if len(sizes) > 2 else 0
    np.testing.assert_allclose(model.predict(X), expected + shift, atol=1e-12)


def test_ranges_of_lags_can_be_searched_and_copied():
    X = data(300)
    y = np.roll(X[:, 0], 4) + 0.1 * np.random.default_rng(0).standard_normal(300)
    named = [("filter", fir("causal")), ("level", LevelShift())]
    grid = {"filter__tmax": [0.01, 0.04, 0.06]}
    search = GridSearchCV(NEMSRegressor(named), grid, cv=KFold(3)).fit(X, y)
    assert search.best_params_["filter__tmax"] >= 0.04
    fitted = search.best_estimator_.model_.layers["filter"]
    assert fitted.get_params()["shape"] == (None, 3)
    again = type(fitted)(**fitted.get_params())
    assert again.shape == fitted.shape
    assert clone(search.best_estimator_).fit(X, y).score(X, y) > 0.9
    longer = fitted.copy().set_params(tmax=0.1)
    assert longer.shape == (11, 3)
    assert "tmax=0.1" in repr(longer)
    assert "tmin" not in repr(FiniteImpulseResponse((3, 1)))
    with pytest.raises(ValueError, match="cannot be written as a word"):
        to_keywords([fitted])


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((None, 1), {"tmin": 0.0, "tmax": 0.1}, "must be given together"),
        ((None, 1), {"tmin": 0.2, "tmax": 0.1, "sampling_frequency": 10}, "tmin <= tmax"),
        ((3, 1), {"tmin": 0.0, "tmax": 0.1, "sampling_frequency": 100}, "shape has 3 lags.* 11"),
        (
            (None, 1),
            {"tmin": 0, "tmax": 1, "sampling_frequency": 9, "include_anticausal": True},
            "include_anticausal and tmin were both given",
        ),
    ],
)
def test_ranges_of_lags_that_make_no_sense(shape, options, message):
    with pytest.raises(ValueError, match=message):
        FiniteImpulseResponse(shape, **options)


# ---------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_patterns_are_those_of_the_formula(n_outputs):
    """A = Cov(x) W Cov(s)^-1, with the lags written out."""
    X, rng = data(400), np.random.default_rng(1)
    layer = fir("future", 3, n_outputs)
    layer["coefficients"] = rng.standard_normal(layer.shape)
    patterns, lags = activation_patterns(Model([layer]), X)
    lagged = design(X, -4, 0)[:-4].reshape(396, -1)
    weights = layer["coefficients"].values.reshape(-1, n_outputs)
    covariance = np.cov(lagged.T, bias=True)
    decoded = weights.T @ covariance @ weights
    expected = covariance @ weights @ np.linalg.inv(decoded)
    np.testing.assert_allclose(patterns.reshape(-1, n_outputs), expected, rtol=1e-8)
    assert lags.tolist() == [-4, -3, -2, -1, 0]
    # Patterns and filters are inverse to each other.
    np.testing.assert_allclose(expected.T @ weights, np.eye(n_outputs), atol=1e-10)


def test_patterns_find_the_forward_model_that_filters_do_not():
    rng = np.random.default_rng(0)
    source = rng.standard_normal(20_000)
    forward = np.array([1.0, -0.5, 0.0, 2.0])
    noise = rng.standard_normal((20_000, 2)) @ rng.standard_normal((2, 4))
    late = np.roll(source, 2)  # the response comes two samples after the source
    X = np.outer(late, forward) + noise + 0.1 * rng.standard_normal((20_000, 4))
    decoder = NEMSRegressor([fir("future"), LevelShift()]).fit(X, source)
    patterns, lags = activation_patterns(decoder, X)
    at = patterns[lags == -2][0, :, 0]
    np.testing.assert_allclose(at, forward, atol=0.05)
    weights = decoder.model_.layers[0]["coefficients"].values[2]
    assert np.abs(weights / np.abs(weights).max() - forward / 2).max() > 0.2
    others = patterns[lags != -2]
    assert np.abs(others).max() < 0.05


def test_patterns_of_sessions_and_of_dependent_outputs():
    X = data(200)
    layer = fir("both", 3, 2)
    layer["coefficients"] = np.repeat(np.random.default_rng(1).standard_normal((6, 3, 1)), 2, 2)
    model = Model([layer])
    whole, _ = activation_patterns(model, X, sessions=np.repeat([0, 1], 100))
    parts, _ = activation_patterns(model, [X[:100], X[100:]])
    np.testing.assert_allclose(whole, parts)
    np.testing.assert_allclose(whole[..., 0], whole[..., 1])
    assert np.isfinite(whole).all()
