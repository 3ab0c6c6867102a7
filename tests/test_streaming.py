"""Recordings larger than memory: results go where the caller says, a piece at a time."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from sklearn import config_context

from skdyn import preprocessing
from skdyn.dynemo import inference
from skdyn.preprocessing import base
from tests.torture.models import dynemo, nems, recording

X, Y = recording(300, 4)
FORMS = {
    "array": X,
    "list": [X[:200], X[200:]],
    "stack": X.reshape(3, 100, 4),
    "single": X.astype(np.float32),
}
TRANSFORMERS = {
    name: getattr(preprocessing, name)()
    for name in preprocessing.__all__
    if inspect.isclass(getattr(preprocessing, name)) and name != "BadSegments"
}
TRANSFORMERS["BandpassFilter"].set_params(low=0.1, high=0.3)
TRANSFORMERS["NotchFilter"].set_params(frequency=0.2, width=0.05)
TRANSFORMERS["TimeDelayPCA"].set_params(n_embeddings=3, n_components=2)
TRANSFORMERS["DyNeMoEstimator"] = dynemo()

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("short_search"),
]


def empty_like(result):
    if isinstance(result, list):
        return [np.full(one.shape, np.nan, one.dtype) for one in result]
    return np.full(result.shape, np.nan, result.dtype)


@pytest.mark.parametrize("name", TRANSFORMERS)
@pytest.mark.parametrize("form", FORMS)
def test_transform_writes_to_out(name, form):
    model = TRANSFORMERS[name].fit(FORMS[form])
    expected = model.transform(FORMS[form])
    out = empty_like(expected)
    assert model.transform(FORMS[form], out=out) is out
    for found, right in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("has_axis", [False, True])
def test_predict_writes_to_out(form, has_axis):
    given = FORMS[form]
    y = [one[..., 0] for one in given] if form == "list" else given[..., 0]
    if has_axis:
        y = [one[..., None] for one in y] if form == "list" else y[..., None]
    model = nems().fit(given, y)
    expected = model.predict(given)
    out = empty_like(expected)
    assert model.predict(given, out=out) is out
    for found, right in zip(out, expected, strict=True):
        np.testing.assert_array_equal(found, right)


def test_out_may_be_a_memory_map_of_another_type(tmp_path):
    model = dynemo().fit(X)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (len(X), 2))
    model.transform(X, sessions=np.repeat([0, 1], 150), out=out)
    out.flush()
    expected = model.transform(X, sessions=np.repeat([0, 1], 150))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected.astype(np.float32))


READ_ONLY = np.zeros((300, 4))
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("form", "out", "message"),
    [
        ("array", np.zeros((299, 4)), r"out has the shape \(299, 4\)"),
        ("array", np.zeros((301, 4)), "out has 301 rows, but 300"),
        ("array", np.zeros((300, 5)), "out has the shape"),
        ("array", np.zeros((300, 4), int), "out must hold arrays of floats"),
        ("array", READ_ONLY, "out is read-only"),
        ("array", X, "out shares memory with X"),
        ("array", [np.zeros((300, 4))], "out is a list, but an array"),
        ("list", np.zeros((300, 4)), "a list of 2 arrays was expected"),
        ("list", [np.zeros((300, 4))], "a list of 2 arrays was expected"),
        ("stack", np.zeros((2, 100, 4)), "out has the shape"),
        ("array", 3, "out must hold"),
    ],
    ids=str,
)
def test_out_that_does_not_fit_is_refused(form, out, message):
    model = preprocessing.SessionScaler().fit(FORMS[form])
    with pytest.raises(ValueError, match=message):
        model.transform(FORMS[form], out=out)


def test_out_is_no_metadata():
    with config_context(enable_metadata_routing=True):
        for model in (preprocessing.SessionScaler(), dynemo(), nems()):
            for method in ("transform", "predict"):
                request = getattr(model.get_metadata_routing(), method, None)
                assert request is None or "out" not in request.requests


@pytest.mark.parametrize("name", [n for n, t in TRANSFORMERS.items() if hasattr(t, "_learn")])
def test_large_sessions_are_mapped_some_channels_at_a_time(name, monkeypatch):
    model = TRANSFORMERS[name].fit(X)
    expected = model.transform(X)
    monkeypatch.setattr(base, "NUMBERS_AT_ONCE", 700)
    seen = []
    mapped = type(model)._map
    monkeypatch.setattr(
        type(model), "_map", lambda self, one: seen.append(one.shape[1]) or mapped(self, one)
    )
    np.testing.assert_allclose(model.transform(X), expected, rtol=1e-12, atol=1e-12)
    assert seen == ([2, 2] if model._is_by_channel else [4])


def test_posterior_of_a_long_session_is_refined_in_stretches(monkeypatch):
    long, _ = recording(3000, 3)
    model = dynemo(n_refinement_steps=5).fit(long)
    whole, score = model.transform(long), model.score(long)
    monkeypatch.setattr(inference, "LONGEST_REFINED", 1000)
    parts = model.transform(long)
    assert parts.shape == whole.shape
    assert np.abs(parts - whole).max() < 0.15
    assert np.abs(parts - whole).mean() < 0.01
    assert abs(model.score(long) - score) < 0.01


def test_results_of_a_session_do_not_depend_on_the_others(monkeypatch):
    sessions = [recording(n, 3, seed=n)[0] for n in (120, 90, 250)]
    model = dynemo().fit(sessions)
    together = model.transform(sessions), model.score_samples(sessions), model.draw_alpha(sessions)
    monkeypatch.setattr(inference, "REFINED_AT_ONCE", 1)
    apart = model.transform(sessions), model.score_samples(sessions), model.draw_alpha(sessions)
    for one, other in zip(together, apart, strict=True):
        for found, right in zip(one, other, strict=True):
            np.testing.assert_allclose(found, right, rtol=2e-4, atol=2e-5)


LARGE = """
import re, resource, sys, threading, time, warnings
from pathlib import Path
import numpy as np
from tests.torture.models import dynemo
from skdyn.preprocessing import SessionScaler

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], own())
        time.sleep(0.002)

warnings.simplefilter("ignore")
X = np.load(sys.argv[1], mmap_mode="r")
out = np.lib.format.open_memmap(sys.argv[2], "w+", np.float32, (*X.shape[:2], 2))
scaled = np.lib.format.open_memmap(sys.argv[3], "w+", np.float32, X.shape)
model = dynemo(n_refinement_steps=1, sequence_length=200, diagonal_covariances=True)
model.fit(X[0, :400])
model.transform(X[0, :400])
peak = [0]
threading.Thread(target=watch, daemon=True).start()
peaks = []
for n in (len(X) // 8, len(X)):
    peak[0] = own()
    model.transform(X[:n], out=out[:n])
    model.score(X[:n], n_draws=1)
    SessionScaler().fit(X[:n]).transform(X[:n], out=scaled[:n])
    peaks.append(peak[0])
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path):
    path = tmp_path / "X.npy"
    shape = (48, 8192, 128)  # 200 MB
    X = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    X[:] = np.random.default_rng(0).standard_normal((8192, 128), dtype=np.float32)
    X.flush()
    run = subprocess.run(
        [sys.executable, "-c", LARGE, *(str(tmp_path / one) for one in ("X.npy", "out", "scaled"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # Of 175 MB more of data; peaks of one recording differ by up to 65 MB from run to run.
    assert float(run.stdout.split()[-1]) < 100
