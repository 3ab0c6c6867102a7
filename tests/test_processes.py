"""Fits in child processes and threads: one result, nothing left running, nothing set."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from skdyn import analysis
from skdyn.core.checkpoint import describe
from skdyn.nems import inspection
from tests.torture import inputs
from tests.torture.models import dynemo, nems, recording

X, Y = recording(400, 4)
KINDS = {
    "dynemo": lambda seed: dynemo(random_state=seed).fit(X),
    "from data": lambda seed: dynemo(random_state=seed, init_method="moments").fit(X),
    "lbfgs": lambda seed: nems(random_state=seed).fit(X, Y),
    "adam": lambda seed: nems("wc.4x2-fir.3x2-lvl.1-relu.1", solver="adam", max_iter=3).fit(X, Y),
    "closed form": lambda seed: nems("fir.2x4").fit(X, Y),
}

pytestmark = pytest.mark.filterwarnings("ignore")


def fit(kind, seed=0):
    """Digest of the results of a fit and of its predictions."""
    model = KINDS[kind](seed)
    found = {n: v for n, v in vars(model).items() if n.endswith("_") and n != "history_"}
    used = model.transform(X) if hasattr(model, "transform") else model.predict(X)
    return describe([found, used, model.score(X, Y)])


def fit_all(seed=0):
    return {kind: fit(kind, seed) for kind in KINDS}


@pytest.fixture(scope="module")
def expected():
    return fit_all()


# In a process of its own, so that torch has threads, and the parent has used them.
FORKED = """
import json, multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore")
environment = dict(os.environ)
import torch
from tests.test_processes import fit_all
torch.set_num_threads(2)
found = [fit_all()]
matrix = torch.ones(800, 800)
matrix @ matrix  # work of the caller's own, on two threads
found += [fit_all()]
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found += pool.map(fit_all, [0, 0])
    threads = [one.name for one in threading.enumerate() if not one.daemon]
    changed = {k: v for k, v in os.environ.items() if environment.get(k) != v}
    left = [torch.get_num_threads(), threads, changed]
    print(json.dumps([found, left]))
"""


@pytest.mark.slow
def test_fits_in_forked_children_end_and_agree():
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKED)],
        env=environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found, (n_threads, threads, changed) = json.loads(done.stdout.splitlines()[-1])
    assert all(one == found[0] for one in found)
    assert n_threads == 2
    assert threads == ["MainThread"]
    assert not changed


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_fits_in_new_processes_agree(method, expected):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(fit_all) == expected


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading", "sequential"])
def test_fits_under_each_backend_of_joblib_agree(backend, expected):
    with joblib.parallel_backend(backend):
        found = joblib.Parallel(n_jobs=2)(joblib.delayed(fit_all)() for _ in range(2))
    assert found == [expected, expected]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_fits_in_threads_agree_and_leave_nothing(n_threads, expected):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        running = threading.active_count()
        environment = dict(os.environ)
        kinds = list(KINDS) * 2
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(fit, kinds))
        assert found == [expected[kind] for kind in kinds]
        assert torch.get_num_threads() == n_threads
        assert threading.active_count() == running
        assert dict(os.environ) == environment
    finally:
        torch.set_num_threads(before)


def test_one_fitted_estimator_serves_many_threads():
    model = dynemo().fit(X)
    expected = model.transform(X)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(model.transform, [X] * 8):
            np.testing.assert_array_equal(found, expected)


# What torch does without threads, or to one number only.
WITHOUT_THREADS = {
    *("__deepcopy__", "__get__", "__len__", "__set__", "_has_compatible_shallow_copy_type"),
    *("_set_grad_enabled", "cpu", "detach", "device", "dim", "from_numpy", "is_floating_point"),
    *("item", "numel", "numpy", "requires_grad_", "size", "tensor"),
}


class OnSeveralThreads(TorchFunctionMode):
    """Writes down operations on more than one number while torch may use several threads."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", str(function))
        if torch.get_num_threads() > 1 and name not in WITHOUT_THREADS:
            tensors = [one for one in [*args, result] if isinstance(one, torch.Tensor)]
            if any(one.numel() > 1 and not one.is_meta for one in tensors):
                self.names.add(name)
        return result


def public_calls():
    """Calls with right arguments of functions, and of methods of fitted estimators, by name."""
    for (name, argument), (call, right) in inputs.targets().items():
        if right is not None:
            yield f"{name}({argument})", lambda call=call, right=right: call(right)
    model, sessions = KINDS["dynemo"](0), [X[:200], X[200:]]
    for name in ("score_samples", "free_energy", "evidence", "draw_alpha"):
        yield name, lambda name=name: getattr(model, name)(X)
    yield "sample", lambda: model.sample(20)
    yield "session_modes", lambda: analysis.session_modes(model, sessions)
    yield "fine_tune", lambda: analysis.fine_tune(model, sessions, n_epochs=1)
    encoder = KINDS["lbfgs"](0)
    yield "receptive_field", lambda: inspection.receptive_field(encoder, X)
    yield "local_receptive_fields", lambda: inspection.local_receptive_fields(encoder, X)
    yield "tuning_curves", lambda: inspection.tuning_curves(encoder)
    yield "layer_contributions", lambda: inspection.layer_contributions(encoder, X, Y)


@pytest.mark.slow
@pytest.mark.usefixtures("short_search")
def test_nothing_public_computes_on_several_threads():
    """In a forked child, threads that its parent had would wait for ever."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = {}
        for name, call in public_calls():
            with OnSeveralThreads() as seen:
                call()
            if seen.names:
                found[name] = seen.names
    finally:
        torch.set_num_threads(before)
    assert not found
