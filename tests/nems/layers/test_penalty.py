"""A layer's own weight of its penalty."""

import numpy as np
import pytest

from skdyn.nems import Layer, Model
from skdyn.nems.layers import FIR, Concatenate, DoubleExponential, LevelShift


def test_it_is_printed_if_there_is_one():
    assert "l2" not in repr(FIR((2, 1)))
    options = "stride=1, include_anticausal=False"
    for l2, shown in {0: "0.0", 1e-4: "0.0001"}.items():
        assert repr(FIR((2, 1), l2=l2)).startswith(
            f"FiniteImpulseResponse(shape=(2, 1), {options}, l2={shown})\n==="
        )
    assert repr(Layer(l2=2)) == str(Layer(l2=2)) == "Layer(shape=None, l2=2.0)\n" + "=" * 32
    assert "l2=2.0" in repr(Model([FIR((2, 1), l2=2)]))


@pytest.mark.parametrize("l2", [0, 2, np.float32(0.5), np.int64(3)])
def test_it_becomes_a_plain_number(l2):
    layer = FIR((2, None), l2=l2)
    assert type(layer.l2) is float
    assert layer.l2 == layer.get_params()["l2"] == l2
    assert layer.set_params(l2=None).l2 is None
    assert layer.set_params(l2=l2).l2 == l2
    layer.resize((9, 3))
    assert layer.copy().l2 == l2


@pytest.mark.parametrize("l2", [-1, np.inf, np.nan, "4", True, np.bool_(True), [1.0], np.ones(1)])
def test_what_is_no_weight_is_an_error(l2):
    with pytest.raises(
        ValueError, match=r"^l2 of a FiniteImp.* must be a finite number of at least 0"
    ):
        FIR((2, 1), l2=l2)


def test_there_has_to_be_something_to_penalise():
    class Bent(DoubleExponential):
        penalised = ("amplitude",)

    assert Bent(l2=1).l2 == 1
    assert Concatenate(l2=1).l2 == 1
    with pytest.raises(ValueError, match=r"l2 of a LevelShift, none of whose parameters"):
        LevelShift(l2=1)
