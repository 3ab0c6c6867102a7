"""How the layers of a model are connected: what goes into each, and what its outputs are called."""

from __future__ import annotations

from collections.abc import Iterator, Set

import numpy as np

from skdyn.nems.layers.base import Layer

INPUT, STATE, OUTPUT = "input", "state", "output"


def check_rows(data: dict, repeated: Set[tuple[int, ...]] = frozenset()) -> None:
    """Check that arrays have the same number of rows.

    Parameters
    ----------
    data : dict of ndarray of shape (n_samples, ...)
        What goes in, by name.
    repeated : set of tuple of int, default=frozenset()
        Shapes of the first axis that may stand beside any other.

    Raises
    ------
    ValueError
        If they do not, or if one has none.
    """
    rows = {name: array.shape[:1] for name, array in data.items()}
    different = set(rows.values())
    if not different or different & {(), (0,)}:
        raise ValueError(
            f"Got {rows} as rows of the data, expected arrays with a row per moment, in each trial "
            "if there are trials."
        )
    if len(different - repeated) > 1:
        raise ValueError(
            f"Got data of {rows} rows, expected the same number in each; cut them to one length."
        )


def shapes(inputs: list) -> Iterator[tuple[int, ...]]:
    """Give the shapes of arrays, also of those that go in as one list.

    Parameters
    ----------
    inputs : list of ndarray, or of lists of such
        What goes into a layer.

    Yields
    ------
    tuple of int
        One per array.
    """
    for one in inputs:
        if isinstance(one, list):
            yield from shapes(one)
        else:
            yield np.shape(one)


def first(data: dict):
    """Find what goes into a first layer that names nothing.

    Parameters
    ----------
    data : dict of ndarray or Tensor
        What there is, by name.

    Returns
    -------
    ndarray, Tensor or None
        What is called "input", or the only one that is not the state; None if it is not clear.
    """
    others = [name for name in data if name != STATE]
    return data[INPUT] if INPUT in data else data[others[0]] if len(others) == 1 else None


def arguments(layer: Layer, data: dict, previous) -> tuple[list, dict]:
    """Collect what goes into a layer.

    Parameters
    ----------
    layer : Layer
        Whose `input` says what it is.
    data : dict of ndarray or Tensor
        Data and named outputs.
    previous : ndarray, Tensor, list of such or None
        What came out of the layer before.

    Returns
    -------
    args : list
        Positional arguments.
    kwargs : dict
        Keyword arguments.

    Raises
    ------
    ValueError
        If a name is not there, or the first of several data is not clear.
    """
    known = sorted(name for name in data if name != OUTPUT)

    def find(name):
        if isinstance(name, list | tuple):
            return [find(one) for one in name]
        if name not in known:
            raise ValueError(
                f"Got a layer {layer.name!r} with the input {name!r}, expected one of {known}; "
                "give it in the data, or as the output of a layer before."
            )
        return data[name]

    wanted = layer.input
    if isinstance(wanted, dict):
        return [], {argument: find(name) for argument, name in wanted.items()}
    if isinstance(wanted, str):
        return [find(wanted)], {}
    if wanted is not None:
        return [find(name) for name in wanted], {}
    if previous is None:
        raise ValueError(
            f"Got the data {known} and a first layer {layer.name!r} with input=None, expected a "
            "name; say which of them it takes."
        )
    state_argument = getattr(layer, "state_arg", None)
    return [previous], {state_argument: find(STATE)} if state_argument else {}


def with_two_axes(output, layer: Layer):
    """Give an output of one axis a second one.

    Parameters
    ----------
    output : ndarray, Tensor or list of such
        What came out of a layer.
    layer : Layer
        Which one.

    Returns
    -------
    ndarray, Tensor or list of such
        Of shape (n_samples, ...).

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(output, list | tuple):
        return [with_two_axes(one, layer) for one in output]
    if not getattr(output, "ndim", 0):
        raise TypeError(
            f"Got {output!r} from evaluate of the layer {layer.name!r}, expected an array with a "
            "row per moment, or a list of such."
        )
    return output[:, None] if output.ndim == 1 else output


def named_outputs(layer: Layer, output) -> dict:
    """Give outputs the names that their layer says.

    Parameters
    ----------
    layer : Layer
        Whose `output` says the names.
    output : ndarray, Tensor or list of such
        What came out of it.

    Returns
    -------
    dict of ndarray or Tensor
        One entry per output; those after the first get ".1", ".2", ... where there is one name.

    Raises
    ------
    ValueError
        If there are more or fewer names than outputs.
    """
    several = output if isinstance(output, list) else [output]
    names = layer.output
    if isinstance(names, str):
        names = [names] + [f"{names}.{number}" for number in range(1, len(several))]
    if len(names) != len(several):
        raise ValueError(
            f"Got output={layer.output} of a layer {layer.name!r} that gives {len(several)} "
            "outputs, expected a name for each."
        )
    return dict(zip(names, several, strict=True))


def stacked(outputs: list):
    """Put outputs of several trials into one array.

    Parameters
    ----------
    outputs : list of ndarray, or of lists of ndarray
        One entry per trial.

    Returns
    -------
    ndarray of shape (n_trials, n_samples, ...), or list of such
        Trials first.
    """
    if isinstance(outputs[0], list):
        return [np.stack(parts) for parts in zip(*outputs, strict=True)]
    return np.stack(outputs)
