"""The rules of `tests/architecture/rules.py`: the repository keeps them, and each can fail."""

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import skdyn
from skdyn import NEMSRegressor
from skdyn._sklearn import StrOptions
from tests.architecture import rules
from tests.architecture.sources import House, dotted

ROOT = Path(__file__).resolve().parents[1]

FRONT_DOOR = "'''D.'''\nif TYPE_CHECKING:\n    from a import B\nHOMES = {'B': 'a'}\n"


def _texts():
    """Yield path and text of each text file of the repository, except generated files."""
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [
            one
            for one in subfolders
            if (not one.startswith(".") or one in (".ci", ".github"))
            and not one.endswith(".egg-info")
            and one
            not in (
                *("__pycache__", "build", "dist", "figures", "htmlcov", "shared"),
                *("_build", "auto_examples", "generated"),
            )
        ]
        for file in files:
            path = Path(folder, file)
            try:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture


@pytest.fixture(scope="module")
def house():
    """The sources of the repository."""
    texts = dict(_texts())
    assert {"README.md", "skdyn/core/gaussian.py", "tests/test_architecture.py"} <= set(texts)
    return House(texts)


@pytest.fixture(scope="module")
def violations(house):
    """A function of a rule that returns its violations in the repository."""
    return cache(lambda rule: list(rule(house)))


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps_rule(rule, violations):
    broken = [f"{path}:{line} {message}" for path, line, message in violations(rule)]
    assert not broken, "\n".join(broken)


# ------------------------------------------------------------- each rule on bad and good sources

LONG = "def long():\n" + "    call()\n" * (rules.LONGEST_FUNCTION + 1)
MANY = "".join(f"    one_{i},\n" for i in range(99))
TOO_LONG = "0\n" * (rules.LONGEST_FILE + 1)
COPY = "def f(x):\n    y = x + 1\n    z = y * x\n    return g(z)\n"
SLASH = "/"  # keeps a rule about paths from finding this file
LAYERS = ("skdyn/nems/layers/a.py", "class Gain(Layer): 0\nclass _Base: 0\nGN = Gain")
ALL_NAMED = [part for path in rules.NAMED_FILES | {*rules.OPTIONAL_PACKAGES} for part in (path, "")]

# A rule, then paths and texts in turn.
BAD = [
    ("core_stands_alone", "skdyn/core/a.py", "from sklearn.utils import check_array"),
    ("core_stands_alone", "skdyn/core/a.py", "import skdyn.sessions"),
    ("core_stands_alone", "skdyn/core/a.py", "from .. import sessions"),
    ("core_stands_alone", "skdyn/core/a.py", "def f():\n    from ..dynemo.network import N"),
    ("wings_do_not_meet", "skdyn/dynemo/a.py", "import skdyn.nems.b", "skdyn/nems/b.py", ""),
    (
        *("wings_do_not_meet", "skdyn/nems/layers/a.py", "from skdyn.c import d"),
        *("skdyn/c.py", "def f():\n    from skdyn.dynemo import N"),
        *("skdyn/dynemo/__init__.py", "N = 1"),
    ),
    ("wings_import_shared_rooms_only", "skdyn/dynemo/a.py", "from skdyn.nems.model import Model"),
    ("wings_import_shared_rooms_only", "skdyn/nems/layers/a.py", "from ...dynemo import network"),
    ("wings_import_shared_rooms_only", "skdyn/nems/a.py", "from skdyn import DyNeMoEstimator"),
    ("wings_import_shared_rooms_only", "skdyn/nems/a.py", "import skdyn"),
    (
        *("wings_import_shared_rooms_only", "skdyn/nems/a.py"),
        "def f():\n    from skdyn.plotting import plot_alpha",
    ),
    ("wings_import_shared_rooms_only", "skdyn/nems/a.py", "import_module('skdyn.dynemo')"),
    (
        *("files_have_no_cycle", "skdyn/a.py", "from . import b"),
        *("skdyn/b.py", "if TYPE_CHECKING:\n    from .a import f"),
    ),
    (
        *("files_have_no_cycle", "skdyn/m/a.py", "def f():\n    from skdyn.m import g"),
        *("skdyn/m/__init__.py", "from skdyn.m.b import g"),
        *("skdyn/m/b.py", "from .c import h", "skdyn/m/c.py", "from .a import f"),
    ),
    (
        *("files_have_no_cycle", "skdyn/m/a.py", "from skdyn.m import CONSTANT"),
        *("skdyn/m/__init__.py", "from skdyn.m.a import f\nCONSTANT = 1"),
    ),
    (
        *("rooms_have_no_cycle", "skdyn/m/a.py", "import skdyn.n.a", "skdyn/m/b.py", ""),
        *("skdyn/n/a.py", "", "skdyn/n/b.py", "import skdyn.m.b"),
    ),
    (
        *("rooms_have_no_cycle", "skdyn/nems/layers/a.py", "import skdyn.nems.c"),
        *("skdyn/nems/layers/b.py", "", "skdyn/nems/c.py", "from .layers import b"),
    ),
    ("displays_use_public_attributes", "skdyn/plotting/modes.py", "estimator._modes()"),
    ("displays_use_public_attributes", "skdyn/plotting/a.py", "getattr(estimator, '_modes')"),
    ("displays_use_public_attributes", "skdyn/analysis/a.py", "estimator.network_._modes"),
    ("displays_use_public_attributes", "skdyn/persistence.py", "from skdyn.metrics import _unit"),
    ("matplotlib_comes_late", "skdyn/plotting/modes.py", "import matplotlib.pyplot as plt"),
    ("matplotlib_comes_late", "skdyn/a.py", "try:\n    from matplotlib import cm\nfinally:\n    0"),
    ("arrays_need_no_torch", "skdyn/metrics/a.py", "def f():\n    import torch.nn"),
    ("arrays_need_no_torch", "skdyn/preprocessing/a.py", "from torch import Tensor"),
    ("private_sklearn_has_one_door", "skdyn/a.py", "from sklearn.utils._tags import Tags"),
    ("private_sklearn_has_one_door", "skdyn/a.py", "from sklearn.base import _fit_context"),
    ("private_sklearn_has_one_door", "skdyn/a.py", "import sklearn\nsklearn.utils._tags.get()"),
    (
        *("private_names_stay_in_their_room", "skdyn/m/a.py", "from skdyn.n import _f"),
        *("skdyn/n/__init__.py", "from .b import _f", "skdyn/n/b.py", "def _f(): 0"),
    ),
    (
        *("private_names_stay_in_their_room", "skdyn/nems/a.py", "from .layers import b\nb._f()"),
        *("skdyn/nems/layers/b.py", "def _f(): 0"),
    ),
    (
        *("private_names_stay_in_their_room", "skdyn/a.py", "from skdyn._sklearn import _own"),
        *("skdyn/_sklearn.py", "def _own(): 0"),
    ),
    ("private_names_are_not_exported", "skdyn/m/__init__.py", "__all__ = ['f', '_g']"),
    ("private_names_are_not_exported", "skdyn/a.py", "__all__ = ['f']\n__all__ += ['_g']"),
    ("files_are_short", "tests/a.py", TOO_LONG),
    ("files_are_short", "tests/a.py", f"# Copyright of the authors\n{TOO_LONG}"),
    ("files_are_short", "tests/a.py", f"{TOO_LONG}# Long: a reason far below"),
    ("functions_are_short", "skdyn/a.py", LONG),
    (
        *("functions_are_short", "skdyn/a.py"),
        "class C:\n    @property\n" + re.sub("(?m)^", "    ", LONG),
    ),
    ("functions_are_short", "skdyn/a.py", LONG.replace("):", "):  # noqa: this does not count")),
    ("formulas_are_written_once", "skdyn/a.py", COPY, "skdyn/m/b.py", COPY),
    ("formulas_are_written_once", "skdyn/a.py", COPY + COPY.replace("y", "b").replace("f(", "h(")),
    ("functions_take_settings", "skdyn/a.py", "def f(estimator): return estimator.n_modes"),
    ("functions_take_settings", "skdyn/a.py", "def f(one: NEMSRegressor): g(one.solver)"),
    ("functions_take_settings", "skdyn/a.py", "def f(*, estimator): getattr(estimator, 'tol')"),
    ("layers_are_named_in_their_room", *LAYERS, "skdyn/a.py", "from skdyn.nems.layers.a import GN"),
    ("layers_are_named_in_their_room", *LAYERS, "skdyn/nems/b.py", "from .layers import a\na.Gain"),
    ("layers_are_named_in_their_room", *LAYERS, "skdyn/a.py", "type(one).__name__ == 'Gain'"),
    ("choices_are_made_in_their_place", "skdyn/nems/a.py", "self.solver == 'adam'"),
    ("choices_are_made_in_their_place", "skdyn/nems/a.py", "solver not in ('lbfgs', 'other')"),
    ("choices_are_made_in_their_place", "skdyn/a.py", "match loss:\n    case 'poisson': 0"),
    ("choices_are_made_in_their_place", "skdyn/a.py", "{'adam': 1, 'lbfgs': 2}[solver]"),
    ("choices_are_made_in_their_place", "skdyn/nems/fitting/a.py", "'poisson' == loss"),
    ("files_are_named", "skdyn/helpers.py", ""),
    ("files_are_named", "skdyn/core/utils.py", ""),
    ("named_files_exist", *ALL_NAMED[2:]),
    ("random_numbers_have_generators", "skdyn/a.py", "import numpy as np\nnp.random.seed(0)"),
    ("random_numbers_have_generators", "examples/a.py", "numpy.random.standard_normal(3)"),
    ("random_numbers_have_generators", "skdyn/a.py", "from numpy.random import normal"),
    ("random_numbers_have_generators", "skdyn/a.py", "import random"),
    ("random_numbers_have_generators", "skdyn/a.py", "torch.manual_seed(0)"),
    ("random_numbers_have_generators", "skdyn/a.py", "torch.cuda.manual_seed_all(0)"),
    ("random_numbers_have_generators", "skdyn/a.py", "torch.randn(3)"),
    ("random_numbers_have_generators", "skdyn/a.py", "weight.uniform_(-1, 1)"),
    ("random_numbers_have_generators", "skdyn/a.py", "functional.dropout(theta)"),
    ("random_numbers_have_generators", "skdyn/a.py", "truncnorm.rvs(-2, 2)"),
    ("only_runtime_packages", "skdyn/a.py", "import pandas"),
    ("only_runtime_packages", "skdyn/a.py", "def f():\n    from tensorflow import keras"),
    ("only_runtime_packages", "skdyn/persistence.py", "import skops.io"),
    ("only_runtime_packages", "skdyn/a.py", "def f():\n    import skops.io"),
    ("front_door_only_names", "skdyn/__init__.py", "'''D.'''\nfrom a import B\n__all__ = []"),
    ("front_door_only_names", "skdyn/__init__.py", f"{FRONT_DOOR}__all__ = []"),
    ("front_door_only_names", "skdyn/__init__.py", f"{FRONT_DOOR}__all__ = ['B', 'C']"),
    ("front_door_only_names", "skdyn/__init__.py", f"{FRONT_DOOR}__all__ = ['B']\nD = 3"),
    (
        *("front_door_only_names", "skdyn/__init__.py"),
        FRONT_DOOR.replace("{", "{'C': 'c', ") + "__all__ = ['B', 'C']",
    ),
    ("front_door_only_names", "skdyn/__init__.py", "'''D.'''\nprint('hello')"),
    ("names_are_words", "skdyn/a.py", "def log_density(x, means): 0"),
    ("names_are_words", "skdyn/a.py", "class Mode:\n    def __init__(self, D): 0"),
    ("names_are_words", "skdyn/a.py", "N = 3"),
    ("words_are_the_same", "skdyn/a.py", "def cut(X, *, sampling_rate): 0"),
    ("words_are_the_same", "skdyn/a.py", "raise ValueError(f'Got {x}; do pass ' 'y.')"),
    ("places_stay_out", "README.md", f"run it in {SLASH}work/main"),
    ("places_stay_out", ".ci/run", f"cd '{SLASH}root'"),
    ("places_stay_out", "a.txt", f"--index-url https:{SLASH}/pypi.org/simple"),
]

GOOD = [
    (
        *("front_door_only_names", "skdyn/__init__.py"),
        f"{FRONT_DOOR}__all__ = ['B']\n__version__ = '1'\ndef __getattr__(name): 0",
    ),
    ("core_stands_alone", "skdyn/core/a.py", "from .windows import cut\nimport skdyn.core.runtime"),
    ("core_stands_alone", "skdyn/a.py", "import sklearn\nimport skdyn.sessions"),
    (
        *("wings_do_not_meet", "skdyn/nems/a.py", "from skdyn.core import b"),
        *("skdyn/core/b.py", "", "skdyn/c.py", "import skdyn.nems.a, skdyn.dynemo.a"),
        *("skdyn/dynemo/a.py", ""),
    ),
    (
        *("wings_import_shared_rooms_only", "skdyn/nems/a.py"),
        "from skdyn.sessions import S\nfrom . import model",
    ),
    (
        *("files_have_no_cycle", "skdyn/m/__init__.py", "from .a import f\nfrom .b import g"),
        *("skdyn/m/a.py", "from skdyn.m import g", "skdyn/m/b.py", "import numpy"),
    ),
    (
        *("rooms_have_no_cycle", "skdyn/m/a.py", "import skdyn.c", "skdyn/d.py", "import skdyn.m"),
        *("skdyn/c.py", "", "skdyn/m/__init__.py", ""),
    ),
    ("displays_use_public_attributes", "skdyn/plotting/a.py", "from skdyn._drawing import tidy"),
    (
        *("displays_use_public_attributes", "skdyn/plotting/a.py"),
        "self._draw()\ncls._a\nm.__name__\nm.a_",
    ),
    ("matplotlib_comes_late", "skdyn/a.py", "def f():\n    from matplotlib import pyplot"),
    ("arrays_need_no_torch", "skdyn/core/a.py", "import torch"),
    ("private_sklearn_has_one_door", "skdyn/_sklearn.py", "from sklearn.base import _fit_context"),
    (
        *("private_names_stay_in_their_room", "skdyn/m/a.py"),
        "from skdyn._sklearn import _fit_context\nfrom .b import _f\nself._g\nnumpy._h",
        *("skdyn/_sklearn.py", "from sklearn.base import _fit_context", "skdyn/m/b.py", "_f = 1"),
    ),
    ("private_names_are_not_exported", "skdyn/a.py", "__all__ = ['f', '__version__']"),
    ("files_are_short", "tests/a.py", TOO_LONG.removeprefix("0\n")),
    ("files_are_short", "tests/a.py", "'''D\n" + "0\n" * 999 + "'''\n" + "# 0\n\n" * 999),
    ("files_are_short", "tests/a.py", f"# Long: one table of cases.\n{TOO_LONG}"),
    ("functions_are_short", "skdyn/a.py", f"# Written out as the paper has it.\n{LONG}"),
    ("functions_are_short", "skdyn/a.py", LONG.replace("):", "):  # one table, cut nowhere")),
    ("functions_are_short", "skdyn/a.py", f"def f():\n    '''D.\n{MANY}    '''\n    0"),
    ("functions_are_short", "skdyn/a.py", f"def f(\n{MANY}): 0"),
    ("formulas_are_written_once", "skdyn/a.py", COPY + COPY.replace("g(", "h(")),
    ("functions_take_settings", "skdyn/a.py", "def f(estimator): estimator.fit(estimator.means_)"),
    ("layers_are_named_in_their_room", *LAYERS, "skdyn/a.py", "'''A Gain.'''\nf('no Gain here')"),
    ("choices_are_made_in_their_place", "skdyn/a.py", "f(solver='adam')\nsolver == 'other'"),
    ("choices_are_made_in_their_place", "skdyn/nems/fitting/a.py", "solver == 'adam'"),
    ("files_are_named", "skdyn/core/gaussian.py", ""),
    ("named_files_exist", *ALL_NAMED),
    ("random_numbers_have_generators", "skdyn/a.py", "np.random.RandomState(0).randn(3)"),
    (
        *("random_numbers_have_generators", "skdyn/a.py"),
        "torch.randn(3, generator=g)\nw.normal_(generator=g)",
    ),
    ("random_numbers_have_generators", "skdyn/a.py", "torch.Generator().manual_seed(0)"),
    (
        *("only_runtime_packages", "skdyn/model_selection/table.py"),
        "def to_frame(self):\n    import pandas as pd",
    ),
    ("only_runtime_packages", "skdyn/a.py", "import os\nimport torch.nn\nfrom . import b"),
    ("only_runtime_packages", "skdyn/persistence.py", "def f():\n    import skops.io"),
    ("names_are_words", "skdyn/a.py", "def fit(X, y): x = 1\ndef _f(x): 0"),
    ("words_are_the_same", "skdyn/a.py", "def cut(X, *, sampling_frequency): 0"),
    ("words_are_the_same", "skdyn/a.py", "raise ValueError('Rows do not match. Pass X.')"),
    ("places_stay_out", "a.md", "either/or, /optional, a/work/b, https://example.org/conda-free"),
]


def _violations(case):
    name, *files = case
    house = House(dict(zip(files[::2], files[1::2], strict=True)))
    return list(getattr(rules, name)(house))


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_rule_finds_bad_source(case):
    assert _violations(case)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case[0])
def test_rule_passes_good_source(case):
    assert not _violations(case)


def test_rules_have_bad_source():
    assert {case[0] for case in BAD} == {rule.__name__ for rule in rules.RULES}


def test_cycle_is_reported_as_path():
    cycle = next(case for case in BAD if case[0] == "files_have_no_cycle" and len(case) > 7)
    message = "the files import each other: m/a.py -> m/b.py -> m/c.py -> m/a.py"
    assert ("skdyn/m/a.py", 2, message) in _violations(cycle)


@pytest.mark.parametrize("parameter", rules.CHOICES)
def test_choices_are_those_of_estimator(parameter):
    constraints = NEMSRegressor._parameter_constraints[parameter]
    [options] = [one.options for one in constraints if isinstance(one, StrOptions)]
    assert rules.CHOICES[parameter][0] == options


# --------------------------------------------------------------------------------- the package


IMPORTS = """
import sys
def loaded(*packages):
    return sorted(set(packages) & set(sys.modules))
import skdyn
print(loaded("numpy", "sklearn", "torch"))
import skdyn.preprocessing, skdyn.metrics, skdyn.datasets, skdyn.simulation
print(loaded("matplotlib", "torch", "tqdm"))
import sklearn.base, torch, scipy, joblib, tqdm
before = set(sys.modules)
from skdyn import *
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(sorted(new & {"matplotlib", "pandas", "tensorflow", "keras", "neurolib"}))
print(loaded("matplotlib", "tensorflow"))
"""


def test_imports_load_nothing_heavy():
    """In turn: the names of the package, rooms that need arrays alone, and the estimators."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["[]"] * 4


def test_names_of_package_are_imported_when_used():
    assert set(skdyn.__all__) <= set(dir(skdyn))
    assert {"metrics", "plotting", "preprocessing"} <= set(dir(skdyn))
    for name, home in skdyn.HOMES.items():
        assert getattr(skdyn, name) is getattr(importlib.import_module(home), name)
    assert skdyn.preprocessing is importlib.import_module("skdyn.preprocessing")
    with pytest.raises(AttributeError, match="module 'skdyn' has no attribute 'absent'"):
        skdyn.absent  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'absent'"):
        exec("from skdyn import absent")


def test_names_of_other_packages_exist(house):
    """With the oldest packages (`make test-oldest`), this finds names that came later."""
    used = {}
    for source in house.python():
        for node in source.nodes:
            if isinstance(node, ast.Attribute):
                first, _, rest = dotted(node).partition(".")
                package = source.names.get(first, "")
                if package.partition(".")[0] in ("numpy", "scipy", "torch", "sklearn", "joblib"):
                    used[f"{package}.{rest}"] = f"{source.path}:{node.lineno}"
    assert len(used) > 300
    missing = []
    for name, place in used.items():
        try:
            pkgutil.resolve_name(name)
        except (AttributeError, ImportError):
            missing.append(f"{place} {name}")
    assert not missing


def test_package_is_marked_as_typed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-data"]["skdyn"] == ["py.typed"]
    assert (ROOT / "skdyn" / "py.typed").read_bytes() == b""


def test_pyproject_declares_allowed_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert _packages_in(project["project"]["dependencies"]) == rules.RUNTIME_PACKAGES
    for packages in rules.OPTIONAL_PACKAGES.values():
        for package, extra in packages.items():
            assert package in _packages_in(project["project"]["optional-dependencies"][extra])


def _packages_in(requirements):
    return {re.split(r"[<>=!~ ;\[]", one)[0] for one in requirements}


def test_pytest_treats_warnings_as_errors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
