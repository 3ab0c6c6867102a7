"""Impulse responses and linear parts of a model, found by evaluating its layers."""

from __future__ import annotations

import numpy as np

from skdyn._drawing import check_count
from skdyn._fitted import find_step
from skdyn.nems import Model

# Magnitudes of test inputs; some layers are nonlinear for small or for large numbers only.
SCALES = (1e-3, 1.0, 1e3, 1e6)
# Largest rounding error, relative to the largest number.
ROUNDING = 1e-9
# The same for the end of an impulse response.
SILENCE = 1e-12
# Rows of a test input, and rows after which an impulse response must have ended.
N_TRIED, MOST_ROWS = 64, 4096


def linear_filter(model, n_channels=None, *, n_lags=None):
    """
    Impulse responses of the linear layers that a model begins with, as one filter.

    A sequence of linear layers, such as channel weights, filters and weights, is one linear filter:
    its output is a weighted sum of all channels at all lags. The weights are found by passing a
    unit impulse in each channel through the layers. Offsets are excluded.

    Parameters
    ----------
    model : skdyn.nems.Model or estimator
        The model, a fitted `NEMSRegressor`, or a fitted pipeline or search that holds one.
        Pointwise layers may come first, such as a compressive logarithm; the filter then applies to
        their output. The filter of a pipeline applies to the output of its earlier steps.
    n_channels : int, default=None
        Channels of the stimulus; None for those that an estimator was fitted to.
    n_lags : int, default=None
        Number of lags from the present on; None for the memory of the layers.

    Returns
    -------
    filters : ndarray of shape (n_lags, n_channels, n_outputs)
        Weight of each channel in each output of the last of these layers.
    lags : ndarray of int of shape (n_lags,)
        Lag of the output behind the stimulus in samples: 0, 1, 2 and so on. If a layer is acausal,
        they begin below 0.

    Raises
    ------
    ValueError
        If no layer is linear, the response does not end and `n_lags` is not given, or `n_channels`
        is not given for a model.
    sklearn.exceptions.NotFittedError
        If an estimator is not fitted.
    TypeError
        If an estimator has no model of layers.

    Notes
    -----
    A layer counts as linear if its input is the output of the previous layer, it returns one row
    per row, and its response to a sum of inputs is the sum of its responses. The memory of the
    layers is also measured with values drawn from the priors, so that a filter that ends with zeros
    keeps its length.

    Examples
    --------
    >>> from skdyn.nems import Model, from_keywords
    >>> from skdyn.plotting import linear_filter
    >>> model = Model(from_keywords("wc.3x1-fir.2x1-relu.1"))
    >>> model.set_parameter_values(
    ...     {"wc": {"coefficients": [[1], [0], [-1]]}, "fir": {"coefficients": [[1], [0.5]]}}
    ... )
    >>> filters, lags = linear_filter(model, 3)
    >>> filters[:, :, 0]
    array([[ 1. ,  0. , -1. ],
           [ 0.5,  0. , -0.5]])
    >>> lags
    array([0, 1])
    """
    if not isinstance(model, Model):
        _, fitted, _ = find_step(model, "model_", "n_features_in_")
        model = fitted.model_
        n_channels = fitted.n_features_in_ if n_channels is None else n_channels
    if n_channels is None:
        raise ValueError(
            "n_channels must be given with a Model. Pass the number of channels of the stimulus."
        )
    begin, end = linear_part(model, n_channels)
    if begin == end:
        names = [layer.name for layer in model.layers]
        raise ValueError(
            f"The model has the layers {names}, but linear ones were expected at its beginning. "
            "Plot the parameters of its layers with plot_filters or plot_matrices."
        )
    part = layers_alone(model, begin, end)
    found = [_reach(one, n_channels) for one in (part, part.sample_from_priors(random_state=0))]
    n_future, n_past = (max(reach) for reach in zip(*found, strict=True))
    if n_lags is None and n_past >= MOST_ROWS:
        raise ValueError(
            f"The response of the layers has not ended after {MOST_ROWS} rows. Pass n_lags."
        )
    n_lags = n_past + 1 if n_lags is None else check_count(n_lags, "n_lags")
    impulses = np.zeros((n_channels, n_future + n_lags, n_channels))
    impulses[range(n_channels), n_future, range(n_channels)] = 1
    rest = part.predict(impulses[0] * 0)
    responses = np.stack([part.predict(impulse) - rest for impulse in impulses], axis=1)
    filters = responses.reshape(n_future + n_lags, n_channels, -1)
    return filters, np.arange(-n_future, n_lags)


def linear_part(model, n_channels):
    """Find the first run of linear layers; pointwise layers may come first."""
    begin = 0
    values = np.random.RandomState(0).standard_normal((N_TRIED, n_channels))
    for number, layer in enumerate(model.layers):
        if not _is_plain(layer, first=number == 0):
            return begin, number
        alone = layers_alone(model, number, number + 1)
        # With other values too: a power is linear for exponents of 0 and 1.
        other = alone.sample_from_priors(random_state=0)
        if not all(_is_linear(one, values.shape[1:]) for one in (alone, other)):
            if begin < number or not _is_static(alone, values.shape[1:]):
                return begin, number
            begin = number + 1
        values = alone.predict(values)
    return begin, len(model.layers)


def static_part(model, inputs):
    """Find the first layer of the last run of pointwise layers."""
    begin = len(model.layers)
    for number in reversed(range(len(model.layers))):
        given = inputs[number]
        plain = _is_plain(model.layers[number], first=number == 0) and np.ndim(given) == 2
        if not plain or not _is_static(layers_alone(model, number, number + 1), given.shape[1:]):
            break
        begin = number
    return begin


def layers_alone(model, begin, end):
    """Make a model of copies of some layers that follow each other."""
    layers = [layer.copy() for layer in model.layers[begin:end]]
    layers[0].input = None
    return Model(layers)


def _is_plain(layer, *, first):
    # The input of the first layer is the stimulus, under any name.
    named = not isinstance(layer.input, str) if first else True
    return not (layer.input is not None and named) and not getattr(layer, "state_arg", None)


def _is_linear(alone, shape):
    rng = np.random.RandomState(0)
    for scale in SCALES:
        one, other = scale * rng.standard_normal((2, N_TRIED, *shape))
        # A layer that cannot be evaluated, such as a logarithm of a negative number, is not linear.
        with np.errstate(all="ignore"):
            parts = [alone.predict(given) for given in (one, other, one + other, 0 * one)]
        if isinstance(parts[0], list) or len(parts[0]) != N_TRIED:
            return False
        error = np.abs(parts[2] + parts[3] - parts[0] - parts[1]).max()
        if not error <= ROUNDING * max(np.abs(part).max() for part in parts):
            return False
    return True


def _is_static(alone, shape):
    """Return whether a layer treats rows and channels independently."""
    given = np.random.RandomState(0).standard_normal((N_TRIED, *shape))
    other = given.copy()
    other[:, 0] += 1
    with np.errstate(all="ignore"):
        output, backwards, changed = (alone.predict(one) for one in (given, given[::-1], other))
    if np.shape(output) != given.shape:
        return False
    pairs = [(output[::-1], backwards), (output[:, 1:], changed[:, 1:])]
    return all(np.allclose(*pair, rtol=ROUNDING, atol=0, equal_nan=True) for pair in pairs)


def _reach(part, n_channels):
    """Number of rows before and after an impulse that it changes."""
    weights = np.random.RandomState(0).standard_normal(n_channels)
    n_rows, n_future, n_past = 16, 0, MOST_ROWS
    while n_rows < MOST_ROWS and 2 * max(n_future, n_past) > n_rows:
        n_rows *= 4
        impulse = np.zeros((2 * n_rows + 1, n_channels))
        impulse[n_rows] = weights
        changed = np.abs(part.predict(impulse) - part.predict(0 * impulse))
        changed = changed.reshape(len(impulse), -1).max(axis=1)
        rows = np.flatnonzero(changed > SILENCE * changed.max())
        n_future = n_rows - int(min(rows, default=n_rows))
        n_past = int(max(rows, default=n_rows)) - n_rows
    n_future, n_past = max(n_future, 0), max(n_past, 0)
    return n_future, n_past if 2 * n_past <= n_rows else MOST_ROWS
