"""Two-dimensional convolutions against SciPy, and models made of them."""

import warnings

import numpy as np
import pytest
from scipy.signal import correlate2d
from sklearn.exceptions import ConvergenceWarning

from skdyn import NEMSRegressor
from skdyn.nems.layers import Conv2d

POOLED = {
    "average": lambda z: z.mean(-1),
    "max": lambda z: z.max(-1),
    "min": lambda z: z.min(-1),
    "sum": lambda z: z.sum(-1),
    "product": lambda z: z.prod(-1),
    "std": lambda z: z.std(-1),
    "stack": lambda z: z,
    "cat": lambda z: z.reshape(*z.shape[:-2], -1),
}
MODES = {"zeros": "constant", "reflect": "reflect"}


def by_scipy(x, h, padding):
    """Correlation with filters that are reversed in time, behind zeros."""
    n_lags, n_bands, n_planes, n_filters = h.shape
    before, after = n_bands // 2, n_bands - n_bands // 2 - 1
    x = x if x.ndim == 3 else x[..., np.newaxis]
    if padding != "none":
        x = np.pad(x, [(0, 0), (before, after), (0, 0)], mode=MODES[padding])
    x = np.pad(x, [(n_lags - 1, 0), (0, 0), (0, 0)])
    return np.stack(
        [
            sum(correlate2d(x[..., p], h[::-1, :, p, k], mode="valid") for p in range(n_planes))
            for k in range(n_filters)
        ],
        axis=-1,
    )


@pytest.mark.parametrize("pooling", POOLED)
@pytest.mark.parametrize("padding", ["zeros", "reflect", "none"])
@pytest.mark.parametrize("n_planes", [1, 2])
def test_output_is_that_of_scipy(pooling, padding, n_planes):
    rng = np.random.default_rng(0)
    shape = (3, 4, n_planes, 3) if n_planes > 1 else (3, 4, 3)
    layer = Conv2d(shape, pooling=pooling, padding=padding)
    layer["coefficients"] = rng.standard_normal(shape)
    x = rng.standard_normal((20, 7, n_planes) if n_planes > 1 else (20, 7))
    h = layer["coefficients"].values.reshape(3, 4, n_planes, 3)
    expected = POOLED[pooling](by_scipy(x, h, padding))
    np.testing.assert_allclose(layer.evaluate(x), expected, rtol=1e-11, atol=1e-12)
    layer.set_params(stride=3, channel_stride=2)
    strided = POOLED[pooling](by_scipy(x, h, padding)[::3, ::2])
    np.testing.assert_allclose(layer.evaluate(x), strided, rtol=1e-11, atol=1e-12)


def test_network_of_two_convolutions_finds_features_of_a_spectrogram():
    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, size=(1500, 8))
    edges = np.maximum(X[1:] - X[:-1], 0)[:, 2:5].sum(axis=1)
    y = np.concatenate([[0], edges]) + 0.1 * rng.standard_normal(1500)
    words = "conv2d.2x3x6.stack-relu.s-conv2d.1x3xx4.cat-relu.s-wc-lvl"
    model = NEMSRegressor(words, random_state=0, max_iter=60, tol=1e-4, alpha=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X[:1000], y[:1000])
    assert model.score(X[1000:], y[1000:]) > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "median"}, "pooling must be one of"),
        ({"padding": "wrap"}, "padding must be one of"),
        ({"channel_stride": 0}, "channel_stride must be a whole number"),
        ({"stride": 0}, "stride must be a whole number"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Conv2d((2, 3), **options)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 3 channels"):
        Conv2d((2, 3), padding="none").evaluate(np.zeros((10, 2)))
    with pytest.raises(ValueError, match=r"\(n_samples, n_channels, 2\)"):
        Conv2d((2, 3, 2, 4)).evaluate(np.zeros((10, 5, 3)))
