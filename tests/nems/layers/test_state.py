"""Modulation by states against NumPy, and states on their way through scikit-learn."""

import numpy as np
import pytest

from skdyn.nems import Model, from_keywords
from skdyn.nems.layers import StateDexp, StateGain, StateHinge

KINDS = [StateGain, StateDexp, StateHinge]


def drawn(layer, seed=0):
    rng = np.random.default_rng(seed)
    layer.set_parameter_values(
        {k: rng.standard_normal(p.shape) for k, p in layer.parameters.items()}
    )
    return layer, rng.standard_normal((40, layer.shape[1])), rng.standard_normal((40, 2))


def expected(layer, x, states):
    """One channel and state after the other."""
    p, output = layer.get_parameter_values(as_dict=True), np.zeros_like(x)
    for n in range(x.shape[1]):
        gain = offset = 0.0
        for s in range(states.shape[1]):
            state, value = states[:, s], {name: v[s, n] for name, v in p.items()}
            if isinstance(layer, StateGain):
                gain, offset = gain + state * value["gain"], offset + state * value["offset"]
            elif isinstance(layer, StateDexp):
                curves = [
                    value[f"base_{end}"]
                    + value[f"amp_{end}"]
                    * np.exp(
                        -np.exp(-np.exp(value[f"kappa_{end}"]) * (state - value[f"offset_{end}"]))
                    )
                    for end in "gd"
                ]
                gain, offset = gain + curves[0], offset + curves[1]
            else:
                z = state - value["x0"]
                slopes = [
                    np.where(z < 0, value[f"{k}1"], value[f"{k}2"]) for k in ("gain", "offset")
                ]
                gain, offset = gain + z * slopes[0], offset + z * slopes[1]
        output[:, n] = gain * x[:, n] + offset
    return output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_states", [2, 3])
def test_output_is_that_of_numpy(kind, n_states):
    layer, x, state = drawn(kind((n_states, 3)))
    states = state if n_states == 2 else np.column_stack([np.ones(40), state])
    np.testing.assert_allclose(layer.evaluate(x, state), expected(layer, x, states), atol=1e-12)
    gain, offset = layer.gain_and_offset(state)
    np.testing.assert_allclose(gain * x + offset, layer.evaluate(x, state))


def test_matched_signs_are_those_of_the_first_slopes():
    layer, x, state = drawn(StateHinge((2, 3), match_sign=True))
    plain = StateHinge((2, 3), values=layer.get_parameter_values(as_dict=True))
    for name in ("gain", "offset"):
        first, second = (plain[f"{name}{n}"].values for n in (1, 2))
        plain[f"{name}2"] = np.abs(second) * np.sign(first)
    np.testing.assert_allclose(layer.evaluate(x, state), plain.evaluate(x, state))


@pytest.mark.parametrize("kind", KINDS)
def test_start_is_near_identity(kind):
    rng = np.random.default_rng(0)
    state = np.column_stack([2 + rng.standard_normal(500), rng.random(500) > 0.5])
    x = rng.standard_normal((500, 3))
    layer = kind((3, 3))
    layer.set_parameter_values(layer.start_from(None, x, state))
    assert np.abs(layer.evaluate(x, state) - x).std() < 0.1


@pytest.mark.parametrize("words", ["stategain", "sdexp", "statehinge", "statehinge.m"])
def test_sizes_come_from_the_data_with_a_constant_state(words):
    model = Model(from_keywords(f"wc.x3-{words}"))
    rng = np.random.default_rng(0)
    model.predict(rng.standard_normal((20, 4)), state=rng.standard_normal((20, 2)))
    assert model.layers[1].shape == (3, 3)
    one = Model(from_keywords(f"wc.x3-{words}"))
    one.predict(rng.standard_normal((20, 4)), state=rng.standard_normal(20))
    assert one.layers[1].shape == (2, 3)


def test_states_of_other_widths_are_refused():
    layer, x, state = drawn(StateGain((2, 3)))
    with pytest.raises(ValueError, match=r"shape \(40, 4\), but \(n_samples, 2\), or one col"):
        layer.evaluate(x, np.hstack([state, state]))
    with pytest.raises(ValueError, match="Pass state="):
        StateGain().resize((40, 3))
