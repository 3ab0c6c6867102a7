"""Checks of a skops file before any object is created from it.

A small file can need much memory: by members with a high compression ratio, by many references to
one member, or by the header of an array. A trusted type can also be called with arbitrary
arguments, or get attributes that replace its methods. These checks refuse all of these, using only
the archive's directory and its schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from inspect import getattr_static, isclass
from io import BytesIO
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from sklearn.base import BaseEstimator

__all__ = ["check_archive", "check_members", "check_types", "read_schema", "seal", "unseal"]

SCHEMA = "schema.json"

# Bytes that may be read from any file, and further bytes per byte of the file.
MOST_BYTES, BYTES_PER_BYTE = 2**26, 32
# The same for the schema, a repetitive text, per byte of its compressed form.
MOST_OF_SCHEMA, SCHEMA_PER_BYTE = 2**23, 64

# The end of a file: the version that wrote it, and a digest of everything else.
SEAL = re.compile(rb"(?P<version>\S+ \S+) sha256:(?P<digest>[0-9a-f]{64})", re.ASCII)
NO_DIGEST = b"0" * 64

# Loaders that call a type, and the required base classes of the type.
BASES: dict[str, type | tuple[type, ...]] = {
    "BytearrayNode": bytearray,
    "BytesNode": bytes,
    "DictNode": dict,
    "ListNode": list,
    "MaskedArrayNode": np.ma.MaskedArray,
    "NdArrayNode": (np.ndarray, np.generic),
    "RandomGeneratorNode": np.random.Generator,
    "RandomStateNode": np.random.RandomState,
    "SetNode": set,
    "TupleNode": tuple,
}
# Types of the keys of dictionaries, which are called with their text.
KEYS = (bool, int, float, str, np.number, np.bool_, np.str_)
# Types of class attributes that instances may replace.
PLAIN = (
    *(bool, int, float, complex, str, bytes, tuple, frozenset, np.ndarray, type(None)),
    cached_property,  # whose value is kept as an attribute of its name
)
# Prefix of attributes that make scikit-learn write links into an estimator's representation.
LINKS = "_doc_link"


class _NotSafe(ValueError):
    """A file was refused."""


# ---------------------------------------------------------------------------------- the seal


def seal(content: bytes, version: str) -> bytes:
    """Add the version that writes a file, and a digest of all its bytes.

    Parameters
    ----------
    content : bytes
        A zip archive without a comment.
    version : str
        Two words, such as "skdyn 1.0".

    Returns
    -------
    bytes
        The archive, with both as its comment.
    """
    file = BytesIO(content)
    with ZipFile(file, "a") as archive:
        archive.comment = version.encode() + b" sha256:" + NO_DIGEST
    body = file.getvalue()[: -len(NO_DIGEST)]
    return body + _digest(body)


def unseal(content: bytes) -> str:
    """Find the version that wrote a file, and check the digest.

    Parameters
    ----------
    content : bytes
        The file.

    Returns
    -------
    str
        The version; empty if the file has no seal, such as one written by skops itself.

    Raises
    ------
    ValueError
        If a byte has changed since the file was sealed.
    """
    with ZipFile(BytesIO(content)) as archive:
        comment = archive.comment
    if not comment:
        return ""
    found = SEAL.fullmatch(comment)
    if found is None or not content.endswith(comment):
        raise _NotSafe("its seal is damaged")
    if found["digest"] != _digest(content[: -len(NO_DIGEST)]):
        raise _NotSafe("the file is damaged: its content and its digest differ")
    return found["version"].decode()


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body + NO_DIGEST).hexdigest().encode()


# ------------------------------------------------------------------------------- the archive


def check_archive(content: bytes) -> None:
    """Check how many bytes would be read from an archive.

    Parameters
    ----------
    content : bytes
        The file.

    Raises
    ------
    ValueError
        If it is far more than the size of the file suggests, or members are encrypted, named twice
        or compressed in another way than `save` does.
    """
    with ZipFile(BytesIO(content)) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    if SCHEMA not in names:
        raise _NotSafe(f"it has no {SCHEMA}")
    if len({*names}) < len(names):
        raise _NotSafe("it has several members of one name")
    for member in members:
        _check_member(member)
    total, most = sum(member.file_size for member in members), most_bytes(content)
    if total > most:
        raise _NotSafe(f"its {len(content)} bytes would become {total}, of which {most} may be")
    schema = members[names.index(SCHEMA)]
    if schema.file_size > max(MOST_OF_SCHEMA, SCHEMA_PER_BYTE * schema.compress_size):
        raise _NotSafe(f"its {SCHEMA} would have {schema.file_size} bytes")


def _check_member(member: ZipInfo) -> None:
    if member.flag_bits & 1 or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise _NotSafe(f"its member {member.filename!r} is encrypted, or of another compression")


def most_bytes(content: bytes) -> int:
    """Return the number of bytes that may be read from a file."""
    return max(MOST_BYTES, BYTES_PER_BYTE * len(content))


def read_schema(content: bytes) -> dict[str, Any]:
    """Read the schema of a file.

    Parameters
    ----------
    content : bytes
        The file, checked by `check_archive`.

    Returns
    -------
    dict
        The node of the object that was saved.
    """
    with ZipFile(BytesIO(content)) as archive:
        schema = json.loads(archive.read(SCHEMA))
    if not isinstance(schema, dict):
        raise _NotSafe(f"its {SCHEMA} holds no object")
    return schema


# -------------------------------------------------------------------------------- the schema


def check_members(content: bytes, schema: dict[str, Any]) -> None:
    """Check how many bytes a schema would read from the members of its file.

    Parameters
    ----------
    content : bytes
        The file, checked by `check_archive`.
    schema : dict
        Its schema.

    Raises
    ------
    ValueError
        If an array is larger than its stored data, a member is missing, or members are referenced
        so often that too many bytes would be read.
    """
    nodes = [node for node in _nodes(schema) if "file" in node]
    # A node of the same identity is read once.
    used = {
        (str(node.get("__id__", f"number {number}")), str(node["file"]))
        for number, node in enumerate(nodes)
    }
    with ZipFile(BytesIO(content)) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        missing = sorted({name for _, name in used} - set(sizes))
        if missing:
            raise _NotSafe(f"its members {missing[:3]} are missing")
        total, most = sum(sizes[name] for _, name in used), most_bytes(content)
        if total > most:
            raise _NotSafe(f"{total} bytes would be read of it, of which {most} may be")
        for name in {str(node["file"]) for node in nodes if node["__loader__"] == "NdArrayNode"}:
            _check_array(archive, name, sizes[name])


def check_types(schema: dict[str, Any], own: frozenset[str]) -> None:
    """Check how a schema uses trusted types.

    Parameters
    ----------
    schema : dict
        The schema.
    own : frozenset of str
        Full names of types that need no call with arguments to be made.

    Raises
    ------
    ValueError
        If a type is used where another kind is expected, is called with arguments, or has
        attributes that hide those of its class.
    """
    for node in _nodes(schema):
        _check_type(node, own)


def _nodes(value) -> Iterator[dict[str, Any]]:
    """All nodes of a schema."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            if "__loader__" in one and isinstance(one["__loader__"], str):
                yield one
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)


def _check_array(archive: ZipFile, name: str, size: int) -> None:
    """Check that the size of an array agrees with its stored data."""
    with archive.open(name) as file:
        version = npy.read_magic(file)
        read = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise _NotSafe(f"its member {name!r} has the unknown version {version}")
        shape, _, dtype = read(file)
        header = file.tell()
    n_values = 1
    for length in shape:
        n_values *= int(length)
    if dtype.hasobject or min(shape, default=0) < 0 or header + n_values * dtype.itemsize != size:
        raise _NotSafe(
            f"its member {name!r} has {size - header} bytes for an array of {dtype} and shape "
            f"{shape}"
        )


def _check_type(node: dict[str, Any], own: frozenset[str]) -> None:
    loader, name = node["__loader__"], f"{node.get('__module__')}.{node.get('__class__')}"
    if loader == "JsonNode":
        return
    if loader in ("ConstructorFromReduceNode", "LossNode") and name in own:
        raise _NotSafe(f"it calls {name} with arguments of its own")
    if loader in BASES:
        kind = _find(node)
        if not (isclass(kind) and issubclass(kind, BASES[loader])) or kind is np.void:
            raise _NotSafe(f"it has {name} where {loader.removesuffix('Node').lower()} is expected")
    if loader == "DictNode":
        _check_keys(node)
    if loader == "ObjectNode":
        _check_attributes(node, name)


def _find(node: dict[str, Any]):
    """The type of a node, whose name is trusted."""
    return getattr(import_module(str(node["__module__"])), str(node["__class__"]), None)


def _check_keys(node: dict[str, Any]) -> None:
    types = node["key_types"]["content"]
    if node["key_types"]["__loader__"] != "ListNode" or len(types) != len(node["content"]):
        raise _NotSafe("keys of a dictionary have no types")
    for one in {(one["__loader__"], one["__module__"], one["__class__"]) for one in types}:
        kind = _find({"__module__": one[1], "__class__": one[2]})
        if one[0] != "TypeNode" or not (isclass(kind) and issubclass(kind, KEYS)):
            raise _NotSafe(f"a dictionary has keys of the type {one[1]}.{one[2]}")


def _check_attributes(node: dict[str, Any], name: str) -> None:
    """Refuse attributes that hide methods and properties, or lead to a representation's links."""
    state, kind = node.get("content"), _find(node)
    if not isclass(kind):
        raise _NotSafe(f"{name} is no class")
    if state is None or state["__loader__"] != "DictNode" or _takes_arguments(kind):
        return
    for attribute in state["content"]:
        found = getattr_static(kind, attribute, attribute)
        hides = found is not attribute and not isinstance(found, PLAIN)
        private = found is not attribute and attribute.startswith("_")
        if hides or private or attribute.startswith((LINKS, "__")):
            raise _NotSafe(f"the attribute {attribute!r} of {name} would hide that of its class")


def _takes_arguments(kind: type) -> bool:
    """Whether the stored state of an object is the result of a method, not its attributes."""
    if issubclass(kind, BaseEstimator):
        return False
    return getattr_static(kind, "__getstate__") is not getattr_static(object, "__getstate__")
