"""The benchmarks call the package with parameters that it has; they are too long to run here."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


def names_of_the_package(tree):
    """Names that a file imports from skdyn, with the objects."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "skdyn":
            module = importlib.import_module(node.module)
            for one in node.names:
                found[one.asname or one.name] = getattr(module, one.name)
    return found


def wrong_calls(text):
    """Yield the calls of the package by name that its signatures refuse."""
    tree = ast.parse(text)
    known = names_of_the_package(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        # Unpacked arguments are known at run time alone.
        unpacked = any(isinstance(one, ast.Starred) for one in node.args)
        unpacked |= any(one.arg is None for one in node.keywords)
        if node.func.id in known:
            given = [one for one in node.args if not isinstance(one, ast.Starred)]
            named = {one.arg: None for one in node.keywords if one.arg is not None}
            signature = inspect.signature(known[node.func.id])
            try:
                (signature.bind_partial if unpacked else signature.bind)(*given, **named)
            except TypeError as error:
                yield f"line {node.lineno}: {node.func.id}: {error}"


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_calls_functions_as_they_are(benchmark):
    assert not list(wrong_calls(benchmark.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "call",
    [
        "BandpassFilter(1, 45, sampling_rate=100)",
        "BandpassFilter(1, 45, 100, 4, 5, 6, 7, 8)",
        "BandpassFilter(**settings, sampling_rate=100)",
    ],
)
def test_a_wrong_call_is_found(call):
    right = "from skdyn.preprocessing import BandpassFilter\n"
    assert not list(wrong_calls(right + "BandpassFilter(1, 45, sampling_frequency=100)"))
    assert len(list(wrong_calls(right + call))) == 1
