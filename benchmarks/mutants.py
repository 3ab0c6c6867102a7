"""Mutation test: the share of small changes of a folder's code that its tests detect.

A mutant is the code with one operator, comparison, condition, number, word or keyword argument
changed, or one returned value or call left out. A sample is drawn, and the tests that
run the changed line run against each, in a forked process; a mutant is killed if a test fails or
the time is over. Docstrings, annotations and the text of errors and warnings are not changed.
The package on disk is not changed: an import hook loads the changed code.
"""

import argparse
import ast
import collections
import importlib.abc
import importlib.util
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from processes import markdown

ROOT = Path(__file__).parents[1]
TESTS = {
    "skdyn/model_selection": ["tests/model_selection", "tests/test_dask.py"],
    "skdyn/metrics": [
        "tests/test_metrics.py",
        "tests/test_response_metrics.py",
        "tests/test_noise_correction.py",
    ],
    "skdyn/preprocessing": ["tests/preprocessing"],
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
}


def changes_of(node):
    """Names of changes of a node, each with a function that makes it in a copy of the node."""

    def field(name, value):
        return lambda one: setattr(one, name, value)

    kind = type(getattr(node, "op", None))
    if kind in OPERATORS:
        yield f"{kind.__name__} to {OPERATORS[kind].__name__}", field("op", OPERATORS[kind]())
    if isinstance(node, ast.Compare):
        old = type(node.ops[0])
        new = OPERATORS[old]
        yield f"{old.__name__} to {new.__name__}", field("ops", [new(), *node.ops[1:]])
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "not the condition", field("test", ast.UnaryOp(ast.Not(), node.test))
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield f"{value} to {not value}", field("value", not value)
        elif isinstance(value, int | float):
            yield f"{value} to {value + 1}", field("value", value + 1)
        elif isinstance(value, str):
            yield f"{value!r} to 'XX'", field("value", f"XX{value}")
    if isinstance(node, ast.Return) and node.value is not None:
        yield "return None", field("value", ast.Constant(None))
    if isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            rest = node.keywords[:place] + node.keywords[place + 1 :]
            yield f"without {keyword.arg or '**'}", field("keywords", rest)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "without the call", field("value", ast.Constant(None))


def changeable(tree):
    """Nodes that may be changed."""
    skipped = set()
    for node in ast.walk(tree):
        parts = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.Raise | ast.JoinedStr):
            parts.append(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.append(node)
        if isinstance(node, ast.Assign) and any(
            getattr(target, "id", "") == "__all__" for target in node.targets
        ):
            parts.append(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("warn"):
            parts.append(node)
        for part in parts:
            if part is not None:
                skipped |= {id(one) for one in ast.walk(part)}
    return [node for node in ast.walk(tree) if id(node) not in skipped]


def mutants_of(path):
    """Every mutant of a file: line, name of the change, and code."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    allowed = {id(node) for node in changeable(tree)}
    for number, node in enumerate(nodes):
        if id(node) in allowed:
            for which, (name, _) in enumerate(changes_of(node)):
                yield (path, getattr(node, "lineno", 0), name, number, which)


def code_of(mutant):
    path, _, _, number, which = mutant
    tree = ast.parse(path.read_text())
    if number is not None:
        node = list(ast.walk(tree))[number]
        list(changes_of(node))[which][1](node)
    return compile(ast.fix_missing_locations(tree), str(path), "exec")


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from changed code."""

    def __init__(self, path, code):
        self.path, self.code = path, code
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.code, module.__dict__)


class Recorder:
    """Writes down which lines of a folder each test runs, and how long it takes."""

    def __init__(self, room):
        self.folder, self.lines, self.found = str(ROOT / room), set(), {}

    def trace(self, frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith(self.folder):
            return None
        self.lines.add((code.co_filename, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.lines, start = set(), time.process_time()
        sys.settrace(self.trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.found[item.nodeid] = time.process_time() - start, sorted(self.lines)


class Chosen:
    """Runs some of the tests, the shortest of each file first."""

    def __init__(self, seconds):
        self.seconds = seconds

    def pytest_collection_modifyitems(self, config, items):
        kept = [item for item in items if item.nodeid in self.seconds]
        files = list(dict.fromkeys(item.path for item in kept))
        kept.sort(key=lambda item: (files.index(item.path), self.seconds[item.nodeid]))
        items[:] = kept


def forked(function, cpu_seconds):
    """The exit status of a function in a forked process; negative if it was ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds), int(cpu_seconds)))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os._exit(int(function()))
    end = time.monotonic() + 10 * cpu_seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


OPTIONS = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider"]


def record(room, tests, cpu_seconds):
    """The lines of every test, from a run of unchanged code."""
    with tempfile.NamedTemporaryFile("r") as file:

        def function():
            recorder = Recorder(room)
            status = pytest.main([*OPTIONS, *tests], plugins=[recorder])
            Path(file.name).write_text(json.dumps(recorder.found))
            return status

        if forked(function, cpu_seconds) != 0:
            raise RuntimeError(f"Tests of {room} fail without a change.")
        return json.loads(Path(file.name).read_text())


def run(mutant, tests, seconds, limit):
    """Exit status of pytest for a mutant; negative if the process was killed."""

    def function():
        changed = Changed(mutant[0], code_of(mutant))
        sys.meta_path.insert(0, changed)
        try:
            importlib.import_module(changed.name)
        except Exception:
            return 1
        return pytest.main([*OPTIONS, *tests], plugins=[Chosen(seconds)])

    return forked(function, limit)


def tests_of(room, path):
    """Files with tests: doctests and those named like the file first, where most mutants die."""
    given = TESTS[room]
    files = [file for one in given for file in sorted(ROOT.glob(one))]
    files = [f for one in files for f in (sorted(one.glob("test_*.py")) if one.is_dir() else [one])]
    own = [file for file in files if path.stem in file.stem]
    return [str(path), *map(str, own), *(str(file) for file in files if file not in own)]


def measure(room, n_mutants, seed, limit):
    files = sorted((ROOT / room).glob("*.py"))
    everything = [mutant for path in files for mutant in mutants_of(path)]
    n_drawn = min(n_mutants, len(everything))
    places = np.random.default_rng(seed).choice(len(everything), n_drawn, replace=False)
    tests = [*map(str, files), *tests_of(room, files[0])[1:]]
    recorded = record(room, tests, 10 * limit)
    everywhere = {test: seconds for test, (seconds, _) in recorded.items()}
    if run((files[0], 0, "nothing", None, None), tests, everywhere, 10 * limit) != 0:
        raise RuntimeError(f"Tests of {room} fail without a change.")
    count = collections.Counter()
    for place in places:
        path, line, name, *_ = mutant = everything[place]
        running = {
            test: seconds
            for test, (seconds, lines) in recorded.items()
            if [str(path), line] in lines
        }
        # Lines that run on import count for every test.
        running = running or everywhere
        start = time.monotonic()
        tests = tests_of(room, path)
        needed = {str(ROOT / test.split("::")[0]) for test in running}
        status = run(mutant, [one for one in tests if one in needed], running, limit)
        if status in (3, 4):
            raise RuntimeError(f"pytest ended with the status {status} at {path}:{line}, {name}.")
        found = "survived" if status in (0, 5) else "killed"  # 5: no test runs the line
        count[found] += 1
        seconds = time.monotonic() - start
        where = f"{path.relative_to(ROOT)}:{line}"
        spent = f"{len(running)} tests, {seconds:.0f} s, {status}"
        print(f"{found} {where} {name} ({spent})", flush=True)
    return [room, len(everything), n_drawn, count["killed"], count["survived"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", nargs="+", default=list(TESTS), help="folders")
    parser.add_argument("--mutants", type=int, default=60, help="mutants of each folder")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--limit", type=float, default=120, help="CPU seconds for the tests of one")
    arguments = parser.parse_args()
    # Imported once, before processes are forked.
    for module in ("hmmlearn.hmm", "matplotlib.pyplot", "mne", "pandas", "torch"):
        importlib.import_module(module)
    rows = [
        measure(room, arguments.mutants, arguments.seed, arguments.limit)
        for room in arguments.rooms
    ]
    markdown(["folder", "possible", "sampled", "killed", "survived"], rows)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
