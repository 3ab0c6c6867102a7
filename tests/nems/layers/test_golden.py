"""Outputs of NEMS (LBHB/NEMS, commit 68b00c0) for given inputs and parameters."""

from pathlib import Path

import numpy as np
import pytest

from skdyn.nems.layers import (
    FIR,
    STRF,
    Conv2d,
    DoubleExponential,
    GaussianExpansion,
    Hinge,
    LevelShift,
    LogCompress,
    PoleZeroFilter,
    ReLU,
    ShortTermPlasticity,
    Sigmoid,
    SoftRelu,
    StateGain,
    StateHinge,
    WeightChannels,
    WeightChannelsGaussian,
    WeightChannelsMulti,
)

FREE = {"no_shift": False, "no_offset": False, "no_gain": False}

CASES = {
    "wc": WeightChannels((6, 3)),
    "wc3d": WeightChannels((6, 1, 3)),
    "wc_n": WeightChannels((6, 3), norm_coefficients=True),
    "wc_g": WeightChannelsGaussian((6, 3)),
    "wc_b": WeightChannelsMulti((6, 3, 2)),
    "fir2d": FIR((5, 6)),
    "fir3d": FIR((5, 6, 2)),
    "fir_sep": FIR((5, 1, 6)),
    "fir_s2": FIR((5, 6), stride=2),
    "fir_ac": FIR((5, 6), include_anticausal=True),
    "strf3": STRF((6, 1, 5)),
    "strf4": STRF((6, 2, 5, 3)),
    "strf4sk": STRF((6, 2, 5, 3), skip_alpha=0.5, activation="relu"),
    "lvl": LevelShift((6,)),
    "dexp": DoubleExponential((6,)),
    "dlog": LogCompress((6,)),
    "sig": Sigmoid((6,), **FREE),
    "relu": ReLU((6,), **FREE),
    "srelu": SoftRelu((6,), **FREE),
    "prelu": Hinge((6,)),
    "wge": GaussianExpansion((6, 4)),
    "pzfir": PoleZeroFilter((8, 6)),
    "conv2d": Conv2d((3, 3)),
    "conv2d_stack": Conv2d((3, 3, 4), pooling="stack"),
    "conv2d_max": Conv2d((3, 3, 4), pooling="max"),
    "stp_loop": ShortTermPlasticity((6,)),
    "stategain": StateGain((2, 6)),
    "stategain_bias": StateGain((3, 6)),
    "statehinge": StateHinge((2, 6)),
}


# Those that get something else than "x".
INPUTS = {**dict.fromkeys(["relu", "srelu", "prelu"], "signed"), "wc_b": "banks"}


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).with_name("golden.npz")) as file:
        return dict(file)


# NEMS lets the first sample stand for so many before it.
ONSET = 100


def as_nems_means(case, values):
    """Parameters of NEMS that mean another thing."""
    if case == "statehinge":  # of which it uses the first knee for all channels
        values["x0"] = np.broadcast_to(values["x0"][:, :1], values["x0"].shape)
    return values


def outputs_of(case, layer, golden):
    given = golden[INPUTS.get(case, "x")]
    if case.startswith("state"):
        return layer.evaluate(given, golden["state"])
    if case == "stp_loop":
        return layer.evaluate(np.concatenate([np.repeat(given[:1], ONSET, axis=0), given]))[ONSET:]
    return layer.evaluate(given)


def test_every_output_is_used(golden):
    assert {key.split("/")[0] for key in golden if key.endswith("/y")} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_output_is_that_of_nems(case, golden):
    layer = CASES[case]
    values = {k.split("/")[1]: v for k, v in golden.items() if k.startswith(f"{case}/")}
    expected = values.pop("y")
    layer.set_parameter_values(as_nems_means(case, values))
    assert set(values) == set(layer.parameters)
    found = outputs_of(case, layer, golden)
    assert found.dtype == expected.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
