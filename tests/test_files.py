"""Files: writing is atomic, and only files written by `save` are loaded."""

import os
import resource
import signal
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import InconsistentVersionWarning

from skdyn.core.files import write_atomically
from skdyn.persistence import LoadError, load, save
from tests.torture import files
from tests.torture.children import Died, in_child
from tests.torture.models import dynemo, fitted, nems, recording

pytest.importorskip("skops.io")

SAVED = Path(__file__).parent / "saved"


@pytest.fixture(scope="module")
def originals():
    return fitted()


@pytest.fixture(scope="module")
def contents(originals, tmp_path_factory):
    found = {}
    for name, model in originals[0].items():
        path = tmp_path_factory.mktemp("files") / "model.skops"
        save(model, path)
        found[name] = path.read_bytes()
    return found


# -------------------------------------------------------------------------- atomic writing


@pytest.mark.parametrize("path", sorted(SAVED.glob("*.skops")), ids=lambda path: path.stem)
def test_saved_file_of_each_version_loads(path):
    version, _, name = path.stem.partition("-")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        model = load(path)
    with np.load(SAVED / f"{version}.npz") as results:
        method = "transform" if hasattr(model, "transform") else "predict"
        found = getattr(model, method)(results["X"])
        np.testing.assert_allclose(found, results[name], rtol=1e-4, atol=1e-6)


def test_mutated_files_are_refused(originals, contents, tmp_path):
    models, X = originals
    found = files.run(models, contents, X, 8 * len(files.KINDS), tmp_path)
    assert not files.broken(*found)
    outcomes = Counter()
    for (_, outcome), n in found[0].items():
        outcomes[outcome] += n
    assert outcomes["refused"] > 0.5 * outcomes.total()


@pytest.mark.parametrize("name", ["dynemo", "nems"])
def test_each_flipped_bit_is_noticed(name, contents, tmp_path):
    content, path = contents[name], tmp_path / "model.skops"
    for place in range(0, len(content), len(content) // 60):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(LoadError, match=r"model\.skops"):
            load(path)


@pytest.mark.parametrize("mutate", files.INTENT.values(), ids=files.INTENT)
def test_each_kind_of_harm_can_be_seen(mutate, contents):
    """Each mutation gives other content than it was given."""
    rng = np.random.default_rng(1)
    content = contents["nems"]
    assert mutate(rng, content, content) != content


@pytest.mark.parametrize("attribute", ["predict", "_repr_html_", "_doc_link_template", "n_modes_"])
def test_attributes_that_hide_methods_are_neither_saved_nor_loaded(attribute, tmp_path):
    model = nems()
    vars(model)[attribute] = np.sin
    path = tmp_path / "model.skops"
    if attribute == "n_modes_":
        save(model, path)
        return
    with pytest.raises(ValueError, match=f"NEMSRegressor could not be loaded.*{attribute}"):
        save(model, path)
    assert not path.exists()


def test_names_of_channels_are_escaped_in_html(tmp_path):
    pandas = pytest.importorskip("pandas")
    X, y = recording()
    name = "<img src=x onerror=alert(1)>"
    frame = pandas.DataFrame(X, columns=[name, "b", "c"])
    model = nems("wc").fit(frame, y)
    save(model, tmp_path / "model.skops")
    again = load(tmp_path / "model.skops")
    assert again.feature_names_in_[0] == name
    assert name not in again._repr_html_()


def test_large_constant_arrays_are_saved_as_they_are(tmp_path):
    model = dynemo(initial_covariances=np.zeros((3000, 60, 60)))
    save(model, tmp_path / "model.skops")
    again = load(tmp_path / "model.skops")
    assert again.initial_covariances.shape == (3000, 60, 60)


def test_network_that_does_not_fit_its_weights_is_refused(originals, tmp_path):
    network = originals[0]["dynemo"].network_
    for part, name, value in [
        ("inference", "n_layers", 10**6),
        ("model", "n_units", 10**6),
        (None, "n_modes", 10**5),
        (None, "n_channels", 4),
    ]:
        state = network.__getstate__()
        (state["settings"][part] if part else state["settings"])[name] = value
        start = time.process_time()
        with pytest.raises(ValueError, match="network"):
            type(network).__new__(type(network)).__setstate__(state)
        assert time.process_time() - start < 5


# --------------------------------------------------------------------------------- atomicity


def _write_with_limit(path, n_bytes):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    try:
        write_atomically(path, bytes(10_000))
    except OSError as error:
        return str(error)
    return "written"


@pytest.mark.parametrize("n_bytes", [0, 1, 5000, 9999])
def test_full_disk_leaves_the_old_file(n_bytes, tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(b"old")
    message = in_child(_write_with_limit, path, n_bytes)
    assert message == f"[Errno 27] File too large, nothing was written: '{path}'"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.skops"]


def _write_forever(path, contents):
    while True:
        for content in contents:
            write_atomically(path, content)


def test_killed_process_leaves_a_whole_file(tmp_path):
    path, contents = tmp_path / "model.skops", [b"a" * 10**5, b"b" * 10**5]
    for seconds in np.linspace(0.05, 0.3, 8):
        with pytest.raises(Died):
            in_child(_write_forever, path, contents, seconds=seconds)
        assert path.read_bytes() in contents


def test_atomic_write_keeps_mode_and_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    write_atomically(target, b"old")
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    with pytest.raises(OSError):
        write_atomically(tmp_path, b"a folder")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "missing" / "file", b"")


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask
