"""Several changes of a layer at once: all of them, or none."""

import numpy as np
import pytest

from skdyn.nems import Normal
from skdyn.nems.layers import Hinge


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.set_parameter_values(shift=[8, 8], alpha=[-1, 1]),
        lambda layer: layer.set_parameter_values(shift=[8, 8], alpha=[1, 1, 1]),
        lambda layer: layer.set_parameter_values({"shift": [8, 8]}, alpha="many"),
        lambda layer: layer.set_parameter_values(shift=[8, 8], typo=1),
        lambda layer: layer.set_permanent_values(shift=8, alpha=[1, 1, 1]),
        lambda layer: layer.set_priors(shift=Normal(8, 1), alpha=Normal([1, 1, 1], 1)),
        lambda layer: layer.set_bounds(shift=(0, 8), alpha=(1, 0)),
        lambda layer: layer.parameters.set_vector([8, 8, -1, 1]),
        lambda layer: layer.parameters.set_vector([8, 8, 1, np.nan]),
    ],
)
def test_what_fails_half_way_changes_nothing(change):
    layer = Hinge((2,))
    layer.set_parameter_values(shift=[1, 2], alpha=[3, 4])
    before = layer.copy()
    with pytest.raises((ValueError, KeyError)):
        change(layer)
    assert layer == before
    layer.set_parameter_values(shift=[5, 6], alpha=[7, 8])
    assert layer.parameters.get_vector().tolist() == [5, 6, 7, 8]
