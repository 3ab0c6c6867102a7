import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from skdyn.nems import Normal
from skdyn.nems.layers import FIR, STRF, FiniteImpulseResponse, WeightChannels, filters
from skdyn.nems.layers.filters import BLOCK, FEW_LAGS, MANY_FILTERS, filter_in_time

check = settings(max_examples=60, deadline=None, derandomize=True)


def filtered(X, responses, n_future=0):
    """y[t, k] = sum over l, r of X[t + n_future - l, r, k] h[l, r, k], as it is written."""
    n_lags, n_ranks, n_filters = responses.shape
    output = np.zeros((len(X), n_filters))
    for t, k, lag, r in np.ndindex(len(X), n_filters, n_lags, n_ranks):
        row = t + n_future - lag
        if 0 <= row < len(X):
            output[t, k] += (X[row, r] if X.ndim == 2 else X[row, r, k]) * responses[lag, r, k]
    return output


def fir(shape, seed=1, **options):
    """A filter with random coefficients, and these with an axis of filters."""
    layer = FIR(shape, **options)
    layer["coefficients"] = np.random.default_rng(seed).standard_normal(shape)
    values = layer["coefficients"].values
    return layer, values if values.ndim == 3 else values[..., None]


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape)


# ------------------------------------------------------------------------------------ output


@check
@given(
    st.integers(1, 2 * BLOCK + 3),
    st.integers(1, BLOCK + 8),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.data(),
)
def test_filter_is_the_sum_over_lags(n_samples, n_lags, n_ranks, n_filters, per_filter, data):
    X = normal(n_samples, n_ranks, n_filters) if per_filter else normal(n_samples, n_ranks)
    responses = np.random.default_rng(1).standard_normal((n_lags, n_ranks, n_filters))
    n_future = data.draw(st.integers(-n_lags - 5, n_lags + 4))
    found = filter_in_time(torch.tensor(X), torch.tensor(responses), n_future)
    np.testing.assert_allclose(found, filtered(X, responses, n_future), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("way", ["products", "a convolution", "gradients of the input"])
@pytest.mark.parametrize("n_lags", [1, 2, FEW_LAGS, FEW_LAGS + 1])
@pytest.mark.parametrize("n_filters", [MANY_FILTERS - 1, MANY_FILTERS, MANY_FILTERS + 8])
def test_many_filters_are_sums_over_lags_in_each_trial(n_filters, n_lags, way, monkeypatch):
    if way == "a convolution":
        monkeypatch.setattr(filters, "LAGGED_SIZE", 0)
    X, responses = (
        normal(3 * 35, 2),
        np.random.default_rng(1).standard_normal((n_lags, 2, n_filters)),
    )
    for n_future in (-2, 0, n_lags - 1, n_lags + 1):
        expected = [filtered(trial, responses, n_future) for trial in np.split(X, 3)]
        inputs = torch.tensor(X, requires_grad=way == "gradients of the input")
        h = torch.tensor(responses, requires_grad=True)
        found = filter_in_time(inputs, h, n_future, n_trials=3)
        np.testing.assert_allclose(found.detach(), np.concatenate(expected), rtol=1e-11, atol=1e-11)
        # The gradient of a linear map: <G, f(h)> = <gradient, h>.
        weights = torch.tensor(normal(*found.shape))
        (gradient,) = torch.autograd.grad((found * weights).sum(), h)
        torch.testing.assert_close((gradient * h).sum(), (found * weights).sum())


@pytest.mark.parametrize("n_samples", [1, 3, BLOCK, 5 * BLOCK, 200])
@pytest.mark.parametrize("n_lags", [1, 2, 15, BLOCK, 80])
def test_filters_are_those_of_scipy(n_samples, n_lags):
    X = normal(n_samples, 3)
    layer, responses = fir((n_lags, 3, 2))
    expected = [sum(lfilter(responses[:, r, k], 1, X[:, r]) for r in range(3)) for k in range(2)]
    np.testing.assert_allclose(layer.evaluate(X), np.transpose(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n_lags", [1, 2, 3, 4, 5, 30])
@pytest.mark.parametrize("anticausal", [False, True], ids=["causal", "anticausal"])
def test_each_lag_counts_and_no_other(n_lags, anticausal):
    """The output for an impulse is the impulse response, at its lags."""
    layer, responses = fir((n_lags, 2, 3), include_anticausal=anticausal)
    n_past = max(n_lags // 2 - 1, 0) if anticausal else n_lags - 1
    first = 60 - (n_lags - 1 - n_past)
    for rank in range(2):
        X = np.zeros((130, 2))
        X[60, rank] = 1
        expected = np.zeros((130, 3))
        expected[first : first + n_lags] = responses[:, rank]
        np.testing.assert_array_equal(layer.evaluate(X), expected)


@pytest.mark.parametrize("n_lags", [3, 15])
def test_there_are_zeros_before_the_first_row(n_lags):
    layer, _ = fir((n_lags, 2))
    X = normal(50, 2)
    behind = np.concatenate([np.zeros((100, 2)), X])
    np.testing.assert_allclose(layer.evaluate(behind)[100:], layer.evaluate(X), rtol=1e-12)
    assert not layer.evaluate(behind)[:100].any()


def test_no_rows_give_no_rows():
    assert fir((5, 2, 3))[0].evaluate(np.zeros((0, 2))).shape == (0, 3)


@pytest.mark.parametrize("stride", [1, 2, 3, 7, 100])
def test_stride_keeps_the_first_of_each(stride):
    X = normal(31, 2)
    layer, responses = fir((4, 2, 3), stride=stride)
    np.testing.assert_allclose(layer.evaluate(X), filtered(X, responses)[::stride], rtol=1e-11)


# ----------------------------------------------------------------------- input of each filter


def seen(layer, given):
    """Which entries of a row each filter sees."""
    layer["coefficients"] = np.ones(layer.shape)
    rows = np.eye(int(np.prod(given))).reshape(-1, 1, *given)
    return np.array([layer.evaluate(row)[0] != 0 for row in rows]).reshape(*given, -1)


ALL = np.ones
OWN = np.eye


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((4, 3), (3,), ALL((3, 1))),
        ((4, 1), (1,), ALL((1, 1))),
        ((4, 3, 2), (3,), ALL((3, 2))),
        ((4, 3, 3), (3,), ALL((3, 3))),  # equal ranks: NEMS takes a channel for each here
        ((4, 3, 1), (3,), ALL((3, 1))),
        ((4, 1, 3), (3,), OWN(3)),
        ((4, 1, 3), (1,), ALL((1, 3))),
        ((4, 1, 1), (1,), ALL((1, 1))),
        ((4, 2, 3), (2, 3), np.stack([OWN(3)] * 2)),
        ((4, 3, 3), (3, 3), np.stack([OWN(3)] * 3)),
        ((4, 1, 3), (1, 3), OWN(3)[None]),
    ],
)
def test_what_each_filter_sees(shape, given, expected):
    np.testing.assert_array_equal(seen(FIR(shape), given), expected)


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((4, 3), (2,)),
        ((4, 3), (3, 1)),
        ((4, 1), (3,)),
        ((4, 3, 2), (2,)),
        ((4, 3, 2), (2, 3)),
        ((4, 3, 2), (3, 1)),
        ((4, 3, 2), (1,)),
        ((4, 1, 3), (2,)),
        ((4, 1, 3), (3, 1)),
        ((4, 3, 2), (3, 2, 1)),
        ((4, 1), ()),
    ],
)
def test_input_that_does_not_fit(shape, given):
    message = r"The input of .* has the shape .*, but \(n_samples, .*Make the layer with shape="
    with pytest.raises(ValueError, match=message):
        FIR(shape).evaluate(np.ones((10, *given)))


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((4, None), (3,), (4, 3)),
        ((4, None, None), (3, 2), (4, 3, 2)),
        ((4, 3, None), (3, 2), (4, 3, 2)),
        ((4, None, 2), (3, 2), (4, 3, 2)),
        ((4, None, 2), (3,), (4, 3, 2)),
        ((4, None, 3), (3,), (4, 3, 3)),
        ((4, 1, None), (3,), (4, 1, 3)),
    ],
)
def test_sizes_come_from_the_data(shape, given, expected):
    layer = FIR(shape)
    layer.resize((10, *given))
    assert layer.shape == layer["coefficients"].shape == expected
    assert layer.evaluate(np.ones((10, *given))).shape == (10, expected[2] if expected[2:] else 1)


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((None, 3), (3,)),
        ((None, 3, 2), (3, 2)),
        ((4, None, None), (3,)),
        ((4, 3, None), (3,)),
        ((4, None), (3, 2)),
        ((4, None), ()),
        ((4, None, 2), ()),
    ],
)
def test_sizes_that_the_data_do_not_tell(shape, given):
    with pytest.raises(ValueError, match=r"determines the sizes left open was.*\. Write them"):
        FIR(shape).resize((10, *given))


# ------------------------------------------------------------------------------------ start


@pytest.mark.parametrize("shape", [(15, 1), (15, 3), (15, 1, 10), (3, 2), (2, 2), (1, 2)])
def test_start_of_filters(shape):
    expected = np.zeros(shape)
    if shape[0] > 2:
        expected[1], expected[2] = 2 / shape[0], -1 / shape[0]
    parameter = FIR(shape)["coefficients"]
    np.testing.assert_array_equal(parameter.values, expected)
    assert parameter.prior == Normal(expected, 1 / shape[0])
    assert all(np.isinf(side).all() for side in parameter.bounds)


@pytest.mark.parametrize(
    ("n_lags", "start"),
    [(10, [0, 2, -1]), (15, [0, 2, -1]), (9, [0.5, 0.5, -0.5]), (2, [0.5, 0.5]), (1, [0.5])],
)
def test_start_of_receptive_fields(n_lags, start):
    layer = STRF((6, 2, n_lags, 3))
    expected = np.zeros((n_lags, 2, 3))
    for lag, value in enumerate(start):
        expected[lag] = value / n_lags
    np.testing.assert_array_equal(layer["coefficients"].values, expected)
    assert layer.priors == {
        "wcoefficients": Normal(np.full((6, 2, 3), 0.01), 0.05),
        "coefficients": Normal(expected, 1 / n_lags),
        "shift": Normal(np.zeros((1, 3)), 0.01),
    }
    assert STRF((6, 2, n_lags))["shift"].shape == (1, 1)


# ------------------------------------------------------------------------- receptive fields


def test_plain_field_is_a_filter():
    X = normal(40, 6)
    layer, _ = fir((15, 6))
    field = STRF((6, 15))
    assert field.priors == FIR((15, 6)).priors
    field["coefficients"] = layer["coefficients"].values
    np.testing.assert_array_equal(field.evaluate(X), layer.evaluate(X))


@pytest.mark.parametrize("shape", [(6, 2, 15), (6, 2, 15, 2), (6, 1, 15, 4)])
@pytest.mark.parametrize("skip_alpha", [0.0, 0.7, -0.7])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("stride", [1, 3])
def test_field_is_weights_then_filters(shape, skip_alpha, activation, stride):
    X = normal(40, 6)
    field = STRF(shape, skip_alpha=skip_alpha, activation=activation, stride=stride)
    field.sample_from_priors(0)
    n_in, n_ranks, n_lags, *n_filters = shape
    weights = WeightChannels((n_in, n_ranks, *n_filters))
    weights["coefficients"] = field["wcoefficients"].values
    filters = FIR((n_lags, n_ranks, *n_filters))
    filters["coefficients"] = field["coefficients"].values
    expected = filters.evaluate(weights.evaluate(X)) + field["shift"].values
    skipped = abs(skip_alpha) * X[:, : expected.shape[1]]
    expected += skipped * (skip_alpha < 0)
    expected = np.maximum(expected, 0) if activation else expected
    expected += skipped * (skip_alpha > 0)
    np.testing.assert_allclose(field.evaluate(X), expected[::stride], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", [(2, 1, 15), (2, 1, 15, 3), (2, 15)])
def test_lags_of_a_field(shape):
    field = STRF(shape).sample_from_priors(0)
    X, changed = normal(60, 2), normal(60, 2)
    changed[20] += 1
    differs = (field.evaluate(X) != field.evaluate(changed)).any(axis=1)
    assert np.flatnonzero(differs).tolist() == [*range(20, 35)]


def test_a_field_takes_its_channels_from_the_data():
    layer = STRF((None, 2, 15, 3))
    layer.resize((10, 7))
    assert layer.shape == (7, 2, 15, 3)
    plain = STRF((None, 15))
    plain.resize((10, 7))
    assert plain["coefficients"].shape == (15, 7)


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("shape", [4, None, (4,), (4, 2, 3, 1), (0, 2), (4, 2.5), (4, False)])
def test_shapes_that_are_no_filters(shape):
    with pytest.raises(ValueError, match=r"^shape is .*but \(n_lags, n_ranks\)"):
        FIR(shape)


@pytest.mark.parametrize("shape", [(4,), (4, 2, 3, 1, 1), (4, 0), None])
def test_shapes_that_are_no_fields(shape):
    with pytest.raises(ValueError, match=r"^shape is .*but \(n_in, n_lags\)"):
        STRF(shape)


@pytest.mark.parametrize("shape", [(None, None, 15), (4, 2, None), (None, 2, 15, None)])
def test_sizes_that_the_data_do_not_tell_a_field(shape):
    with pytest.raises(ValueError, match="Write the other sizes"):
        STRF(shape).resize((10, 4))


@pytest.mark.parametrize("layer_class", [FIR, STRF])
@pytest.mark.parametrize("stride", [0, -1, 1.5, True, "2", None])
def test_stride_that_is_none(layer_class, stride):
    with pytest.raises(ValueError, match=r"^stride must be a whole number of at least 1, but is"):
        layer_class((4, 2), stride=stride)


@pytest.mark.parametrize("activation", ["lvl", "dexp", "ReLU", True])
def test_activation_that_is_not_known(activation):
    with pytest.raises(ValueError, match=r"^activation must be None or 'relu', but is"):
        STRF((4, 2), activation=activation)


def test_skip_without_a_channel_for_each_filter():
    with pytest.raises(ValueError, match=r"^skip_alpha=0.5 .* are 2 channels for 3 filters"):
        STRF((2, 1, 15, 3), skip_alpha=0.5)
    layer = STRF((None, 1, 15, 3), skip_alpha=0.5)
    with pytest.raises(ValueError, match=r"^skip_alpha=0.5 .* are 2 channels for 3 filters"):
        layer.resize((10, 2))


@pytest.mark.parametrize("given", [(10, 5), (10,), (4,), (10, 4, 1), (10, 3, 4)])
def test_input_that_does_not_fit_a_field(given):
    with pytest.raises(ValueError, match=r"has the shape .*but \(n_samples, 4\) was"):
        STRF((4, 2, 15, 3)).evaluate(np.ones(given))


def test_the_long_name_is_the_same():
    assert FIR is FiniteImpulseResponse


def test_gradients_at_length():
    """Against sums written out, over many blocks of which the last is not full."""
    X, responses = torch.tensor(normal(3 * BLOCK + 5, 2, 2)), torch.tensor(normal(20, 2, 2))
    weights = torch.tensor(normal(len(X), 2)[::-1].copy())
    X.requires_grad_()
    responses.requires_grad_()
    found = torch.autograd.grad((filter_in_time(X, responses) * weights).sum(), (X, responses))
    for lag, r, k in [(0, 0, 0), (7, 1, 0), (19, 0, 1)]:
        series = X[: len(X) - lag, r, k].detach()
        torch.testing.assert_close(found[1][lag, r, k], series @ weights[lag:, k])
    for t, r, k in [(0, 0, 0), (50, 1, 1), (len(X) - 1, 0, 1)]:
        end = min(t + 20, len(X))
        expected = weights[t:end, k] @ responses[: end - t, r, k].detach()
        torch.testing.assert_close(found[0][t, r, k], expected)
