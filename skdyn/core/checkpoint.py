"""Checkpoints: the state of a fit on disk, from which the fit resumes bit for bit.

A checkpoint has two files that are written alternately, so that one is always intact. A file
holds numbers, text and arrays, and no code; a digest detects damage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skdyn.core.distributed import by_first, is_first
from skdyn.core.files import write_atomically
from skdyn.core.training import Watcher

HEADER = b"skdyn checkpoint 1\n"

# Block size for hashing arrays, in bytes.
BYTES_AT_ONCE = 2**24

# Characters of a digest, and of a description in a message.
DIGEST_LENGTH, TEXT_LENGTH = 16, 60


class Checkpoint:
    """The state of one fit in a folder.

    Parameters
    ----------
    folder : str or path-like
        The folder; created by the first write.
    name : str
        Stem of the file names.
    identity : mapping of str
        Identity of the fit: a description of each parameter and of the data, by name.
    every : int, default=1
        Number of training steps between two saved states.

    Attributes
    ----------
    problem : str
        Problem found by `load` and the action taken; empty if there was none.
    """

    def __init__(
        self, folder: str | PathLike, name: str, identity: Mapping[str, str], every: int = 1
    ):
        self.folder, self.name, self.identity = Path(folder), name, dict(identity)
        self.every = every
        self.problem = ""
        self._n_written = 0

    @property
    def paths(self) -> list[Path]:
        """The two files."""
        return [self.folder / f"{self.name}.{number}.checkpoint" for number in (0, 1)]

    def load(self) -> dict[str, Any] | None:
        """Read the last saved state.

        Returns
        -------
        dict or None
            The state, or None without one. If the last file is damaged, the previous state.

        Raises
        ------
        ValueError
            If the state belongs to another fit; the message names the differences.
        """
        found, damaged = [], []
        for path in self.paths:
            if not path.exists():
                continue
            try:
                found.append(_unpack(path.read_bytes()))
            except Exception as error:
                damaged.append(f"{path} is damaged ({error})")
        last = max(found, key=lambda one: one["n_written"], default=None)
        if damaged:
            then = "goes on from the checkpoint before it" if found else "begins anew"
            self.problem = f"{'; '.join(damaged)}. The fit {then}."
        if last is None:
            return None
        self._compare(last["identity"])
        self._n_written = last["n_written"]
        return last["state"]

    def _compare(self, other: dict[str, str]) -> None:
        names = [n for n in {**self.identity, **other} if self.identity.get(n) != other.get(n)]
        if not names:
            return
        differences = [
            f"{name} is {_short(self.identity.get(name))} here and {_short(other.get(name))} there"
            for name in names
        ]
        raise ValueError(
            f"The checkpoint in {self.folder} is of another fit: {'; '.join(differences)}. Use "
            f"another folder, or remove {self.name}.*.checkpoint to begin anew."
        )

    def save(self, state: dict[str, Any]) -> None:
        """Write a state; if several processes share the fit, only the first writes.

        Parameters
        ----------
        state : dict
            Numbers, text, arrays and tensors, and lists, tuples and dicts of these.
        """
        self._n_written += 1
        whole = {"n_written": self._n_written, "identity": self.identity, "state": state}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.paths[self._n_written % 2], _pack(whole))

    def remove(self) -> None:
        """Remove the files."""
        for path in self.paths:
            with suppress(FileNotFoundError):
                path.unlink()


def load_together(checkpoint: Checkpoint | None, device: torch.device) -> dict[str, Any] | None:
    """Load a checkpoint in the first process and broadcast it.

    Parameters
    ----------
    checkpoint : Checkpoint or None
        The checkpoint; None for none.
    device : torch.device
        Device of the training.

    Returns
    -------
    dict or None
        The result of `Checkpoint.load`, in all processes; its errors are raised in all of them.
    """

    def attempt():
        assert checkpoint is not None
        try:
            return checkpoint.load(), None
        except ValueError as error:
            return None, error

    if checkpoint is None:
        return None
    state, error = by_first(attempt, device)
    if error is not None:
        raise error
    return state


class Saver(Watcher):
    """Watcher that writes the training state to a checkpoint and forwards to another watcher.

    Parameters
    ----------
    watcher : Watcher
        The watcher that calls are forwarded to.
    checkpoint : Checkpoint or None
        Checkpoint that states are written to; None writes nothing.
    earlier : dict or None
        State of the training to resume from.
    whole : callable
        Function from the state of the training to the state of the fit.
    together : bool, default=False
        Whether several processes share the training; then only the first writes.
    """

    def __init__(
        self,
        watcher: Watcher,
        checkpoint: Checkpoint | None,
        earlier: dict[str, Any] | None,
        whole: Callable[[dict[str, Any] | None], dict[str, Any]],
        *,
        together: bool = False,
    ):
        self.watcher, self.checkpoint, self.whole = watcher, checkpoint, whole
        self.state, self.together, self.n_steps = earlier, together, 0

    def begin(self) -> None:
        """Begin a step; see `Watcher`."""
        self.watcher.begin()

    def end(self, numbers: dict[str, float], weights: Any) -> bool:
        """End a step; see `Watcher`."""
        return self.watcher.end(numbers, weights)

    def earlier(self) -> dict[str, Any] | None:
        """Return the state to resume from; see `Watcher`."""
        return self.state

    def resume(self, history: dict[str, list[float]]) -> None:
        """Receive the history of the earlier steps; see `Watcher`."""
        self.watcher.resume(history)

    def keep(self, state: Callable[[], dict[str, Any]], *, is_last: bool) -> None:
        """Write the state if a save is due; see `Watcher`."""
        self.n_steps += 1
        if self.checkpoint is not None and (is_last or self.n_steps % self.checkpoint.every == 0):
            self.write(state())

    def write(self, state: dict[str, Any] | None) -> None:
        """Write the state of a fit.

        Parameters
        ----------
        state : dict or None
            State of the training; None before its first step.
        """
        if self.checkpoint is not None and (not self.together or is_first()):
            self.checkpoint.save(self.whole(state))


# ------------------------------------------------------------------------------ the identity


def describe(value: Any) -> str:
    """Describe a value so that equal descriptions mean equal values.

    Parameters
    ----------
    value : object
        Numbers, text, arrays, tensors, functions, objects with attributes, and containers of them.

    Returns
    -------
    str
        The value itself if it is short, otherwise its type and a digest.
    """
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= TEXT_LENGTH else f"text {_digest([text.encode()])}"
    if isinstance(value, np.generic):
        return describe(value.item())
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} array {value.shape} {_digest(_blocks(value))}"
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    parts = "\n".join(_parts(value, ())).encode()
    kind = type(value).__name__
    size = f" of {len(value)}" if isinstance(value, list | tuple | dict) else ""
    return f"{kind}{size} {_digest([parts])}"


def _parts(value: Any, above: tuple[int, ...]) -> Iterable[str]:
    """Descriptions of the items of a container or the attributes of an object."""
    if id(value) in above:
        yield "itself"
        return
    above = (*above, id(value))
    if isinstance(value, np.random.RandomState):
        value = value.get_state(legacy=False)
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, Mapping):
        items: Iterable = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, set | frozenset):
        items = enumerate(sorted(map(describe, value)))
    elif isinstance(value, np.ndarray):  # of objects
        items = enumerate(value.ravel().tolist())
    else:
        yield f"{type(value).__module__}.{type(value).__qualname__}"
        state = value.__getstate__()
        items = enumerate([state]) if not isinstance(state, Mapping) else state.items()
    for name, one in items:
        if isinstance(one, Mapping | list | tuple | set | frozenset) or hasattr(one, "__dict__"):
            if callable(one) and hasattr(one, "__qualname__"):
                yield f"{name} {describe(one)}"
            else:
                yield f"{name} {type(one).__name__} ("
                yield from _parts(one, above)
                yield ")"
        else:
            yield f"{name} {describe(one)}"


def _digest(blocks: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()[:DIGEST_LENGTH]


def _blocks(array: np.ndarray) -> Iterable[bytes]:
    """The bytes of an array in blocks of rows, so that memory maps are not loaded whole."""
    if array.ndim == 0:
        yield array.tobytes()
        return
    n_rows = max(1, BYTES_AT_ONCE // max(1, array.itemsize * array[:1].size))
    for start in range(0, len(array), n_rows):
        yield array[start : start + n_rows].tobytes()


def _short(text: str | None) -> str:
    if text is None:
        return "missing"
    return text if len(text) <= 2 * TEXT_LENGTH else f"{text[: 2 * TEXT_LENGTH]}..."


# ---------------------------------------------------------------------------------- the file


def _pack(value: Any) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_plain(value, arrays))
    file = BytesIO()
    np.savez(file, tree=np.frombuffer(text.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    content = file.getvalue()
    return HEADER + hashlib.sha256(content).hexdigest().encode() + content


def _unpack(content: bytes) -> dict[str, Any]:
    start = len(HEADER) + 64
    if not content.startswith(HEADER):
        raise ValueError("it is no checkpoint of this version")
    content, digest = content[start:], content[len(HEADER) : start]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("content and digest differ")
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        return _restored(json.loads(arrays["tree"].tobytes()), arrays)


def _plain(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A JSON-compatible tree in which arrays are replaced by their indices."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray | Tensor):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        arrays[f"a{len(arrays)}"] = array
        return {kind: f"a{len(arrays) - 1}"}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(x, arrays) for x in pair] for pair in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_plain(one, arrays) for one in value]}
    if isinstance(value, list):
        return [_plain(one, arrays) for one in value]
    raise TypeError(f"A checkpoint cannot hold a {type(value).__name__}.")


def _restored(tree: Any, arrays: Any) -> Any:
    if isinstance(tree, list):
        return [_restored(one, arrays) for one in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "array":
        return arrays[content]
    if kind == "tensor":
        return torch.from_numpy(arrays[content])
    if kind == "tuple":
        return tuple(_restored(one, arrays) for one in content)
    return {_restored(k, arrays): _restored(one, arrays) for k, one in content}
