"""The rules that every file of the repository keeps, read off the sources with `ast`.

A rule is a function of the `House`. It yields each violation as (path, line, message).
"""

import ast
import re
import sys
from functools import wraps
from itertools import pairwise

from tests.architecture.sources import (
    FUNCTIONS,
    cycles,
    dotted,
    is_private,
    is_text,
    is_within,
    shortest_path,
)

RUNTIME_PACKAGES = {
    *("joblib", "matplotlib", "numpy", "scikit-learn", "scipy", "torch", "tqdm"),
}
# Further packages that one file may import, within a function, and the extra that installs each.
OPTIONAL_PACKAGES = {
    "skdyn/analysis/groups.py": {"pandas": "test"},
    "skdyn/analysis/sessions.py": {"pandas": "test"},
    "skdyn/analysis/statistics.py": {"pandas": "test"},
    "skdyn/analysis/pictures.py": {"mne": "examples"},
    "skdyn/model_selection/clusters.py": {"distributed": "distributed"},
    "skdyn/analysis/densities.py": {"pandas": "test"},
    "skdyn/model_selection/table.py": {"pandas": "test"},  # callers who want a frame have it
    "skdyn/persistence.py": {"skops": "persistence"},
}
ROOMS = {
    "skdyn": "__init__ _archive _callbacks _checkpoints _drawing _fitted _sklearn _versions "
    "_warnings datasets discovery matching persistence sessions similarity simulation",
    "skdyn/analysis": "__init__ channels densities evoked features groups pictures sessions "
    "spectra statistics whittle windows",
    "skdyn/preprocessing": "__init__ artefacts base components embedding filtering rates scaling "
    "alignment signs sounds spikes",
    "skdyn/model_selection": "__init__ clusters comparison evaluation repeats seams splitters "
    "table uncertainty",
    "skdyn/core": "__init__ checkpoint distributed files gaussian hmm recurrent recursion runtime "
    "simplex training windows",
    "skdyn/dynemo": "__init__ estimator inference moments network objective recording settings "
    "start summary training",
    "skdyn/nems": "__init__ architectures distributions inspection keywords losses model "
    "older_words parameter penalties regressor words",
    "skdyn/nems/layers": "__init__ algebra base channels convolution description filters history "
    "nonlinearities normalization plasticity pole_zero recurrent state",
    "skdyn/nems/fitting": "__init__ adam closed_form coordinates factors gradients hidden lbfgs "
    "minimum moments objective parts penalties preconditioning proximal results run saving "
    "settings stages start trials",
    "skdyn/metrics": "__init__ modes reliability responses rows scorers",
    "skdyn/plotting": "__init__ arrays artefacts encoding filters inspection modes networks "
    "responses training",
}
NAMED_FILES = {f"{room}/{name}.py" for room, names in ROOMS.items() for name in names.split()}
# The rooms that both dynemo and nems may import, besides the files at the top of skdyn.
SHARED = {"core", "metrics", *ROOMS["skdyn"].split()} - {"__init__"}
# Choices by name: the names, and the only folder or file that may compare them.
CHOICES = {
    "solver": ({"adam", "lbfgs", "proximal"}, "skdyn/nems/fitting/"),
    "loss": ({"squared_error", "poisson"}, "skdyn/nems/losses.py"),
}
# Functions that a module needs for lazy imports.
LAZY = {"__getattr__", "__dir__"}
LONGEST_FILE, LONGEST_FUNCTION, SHORTEST_COPY = 500, 60, 3

# numpy.random has these to make a generator; everything else in it is the global one.
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

RULES = []


def rule(function):
    RULES.append(function)
    return function


def file_rule(*folders):
    """Make a rule of a function that yields (line, message) for one Python file."""

    def decorate(function):
        @wraps(function)
        def check(house):
            for source in house.python(*folders):
                yield from ((source.path, *found) for found in function(source))

        return rule(check)

    return decorate


# -------------------------------------------------------------- 1 and 2: imports


@file_rule("skdyn/core/")
def core_stands_alone(source):
    for line, name, _ in source.imports:
        foreign = is_within(name, "skdyn") and not is_within(name, "skdyn.core")
        if foreign or is_within(name, "sklearn"):
            yield line, f"core imports {name}"


@rule
def wings_do_not_meet(house):
    """Neither wing imports the other, directly or through files between them."""
    for wing, other in [("dynemo", "nems"), ("nems", "dynemo")]:
        for source in house.python(f"skdyn/{wing}/"):
            path = shortest_path(
                house.imports,
                source.path,
                lambda end, other=other: end.startswith(f"skdyn/{other}/"),
            )
            if path is not None:
                one = house.imports[source.path][path[1]]
                yield source.path, one.line, f"{wing} imports {other}: {_arrows(path)}"


@file_rule("skdyn/dynemo/", "skdyn/nems/")
def wings_import_shared_rooms_only(source):
    wing = source.path.split("/")[1]
    for line, name, _ in source.imports:
        if is_within(name, "skdyn") and not {*name.split(".")[1:2]} & {wing, *SHARED}:
            yield line, f"{wing} imports {name}, which is in none of the shared rooms"


@rule
def files_have_no_cycle(house):
    for cycle in cycles(house.imports):
        one = house.imports[cycle[0]][cycle[1]]
        yield cycle[0], one.line, f"the files import each other: {_arrows(cycle)}"


@rule
def rooms_have_no_cycle(house):
    """In each folder, its files and folders import each other in one direction."""
    for cycle in cycles(house.rooms):
        if not all(room.endswith(".py") for room in cycle):  # files_have_no_cycle has those
            where = [house.rooms[a][b] for a, b in pairwise(cycle)]
            path, _, line = where[0].rpartition(":")
            yield (
                path,
                int(line),
                f"the rooms import each other: {_arrows(cycle)} ({', '.join(where)})",
            )


def _arrows(path):
    return " -> ".join(one.removeprefix("skdyn/") for one in path)


# -------------------------------------------------------- 3: displays, matplotlib and torch


@file_rule("skdyn/plotting/", "skdyn/analysis/", "skdyn/_drawing.py", "skdyn/persistence.py")
def displays_use_public_attributes(source):
    for line, name, _ in source.imports:
        if is_private(name.split(".")[-1]):
            yield line, f"imports the private {name}"
    for node in source.nodes:
        foreign = isinstance(node, ast.Attribute) and dotted(node.value) not in ("self", "cls")
        if foreign and is_private(node.attr):
            yield node.lineno, f"uses the private {ast.unparse(node)}"
        asked = isinstance(node, ast.Call) and dotted(node.func) in ("getattr", "setattr")
        if asked and any(is_text(one) and is_private(one.value) for one in node.args[1:2]):
            yield node.lineno, f"uses a private name: {ast.unparse(node)}"


@file_rule("skdyn/")
def matplotlib_comes_late(source):
    for line, name, is_late in source.imports:
        if name.split(".")[0] in ("matplotlib", "mpl_toolkits") and not is_late:
            yield line, f"{name} is imported outside a function"


@file_rule("skdyn/preprocessing/", "skdyn/metrics/")
def arrays_need_no_torch(source):
    for line, name, _ in source.imports:
        if is_within(name, "torch"):
            yield line, f"{name} is imported where arrays are enough"


# ----------------------------------------------------------------------- 4: private names


@file_rule("skdyn/")
def private_sklearn_has_one_door(source):
    if source.path == "skdyn/_sklearn.py":
        return
    for line, name, _ in source.imports:
        if is_within(name, "sklearn") and any(map(is_private, name.split("."))):
            yield line, f"{name} has to come through skdyn/_sklearn.py"
    for node in source.nodes:
        name = dotted(node)
        if is_within(name, "sklearn") and is_private(name.split(".")[-1]):
            yield node.lineno, f"{name} has to come through skdyn/_sklearn.py"


@rule
def private_names_stay_in_their_room(house):
    """Of another room, underscored are only files at the top and scikit-learn's names."""
    for source in house.python("skdyn/", "examples/", "benchmarks/"):
        used = [(line, name) for line, name, _ in source.imports]
        attributes = [node for node in source.nodes if isinstance(node, ast.Attribute)]
        used += [(node.lineno, source.full_name(node)) for node in attributes]
        for line, name in used:
            parts = name.split(".")
            first = 2 if {*parts[1:2]} & {*ROOMS["skdyn"].split()} else 1
            home = house.home(name) if any(map(is_private, parts[first:])) else None
            if home is None or _room(home) == _room(source.path):
                continue
            origin = house.sources[home].names.get(parts[-1], "")
            if home != "skdyn/_sklearn.py" or not is_within(origin, "sklearn"):
                yield source.path, line, f"uses {name}, which is private to {_room(home)}"


def _room(path):
    """Return the folder of a file; at the top of skdyn each file is a room of its own."""
    folder = path.rpartition("/")[0]
    return path if folder == "skdyn" else folder


@file_rule("skdyn/")
def private_names_are_not_exported(source):
    for node in source.nodes:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if "__all__" in map(dotted, targets):
            for one in ast.walk(node.value):
                if is_text(one) and is_private(one.value):
                    yield one.lineno, f"__all__ has the private {one.value}"


# ---------------------------------------------------------------- 5 and 6: sizes and copies


@file_rule()
def files_are_short(source):
    """Count lines of code; a comment `# Long: ...` above the docstring may give a reason."""
    n_lines = len(source.code_lines)
    above = source.text.splitlines()[: min(source.code_lines, default=1) - 1]
    reasons = [line.removeprefix("# Long:") for line in above if line.startswith("# Long:")]
    if n_lines > LONGEST_FILE and not any(len(reason.split()) > 2 for reason in reasons):
        yield 1, f"the file is too long: {n_lines} lines of code, at most {LONGEST_FILE}"


@file_rule()
def functions_are_short(source):
    """Count the lines of code of the body: a list of 40 parameters is not logic."""
    for node in source.nodes:
        if isinstance(node, FUNCTIONS):
            n_lines = len(_body_lines(source, node))
            if n_lines > LONGEST_FUNCTION and not _has_reason(node, source.text.splitlines()):
                yield node.lineno, f"{node.name} has {n_lines} lines, at most {LONGEST_FUNCTION}"


def _body_lines(source, node):
    return source.code_lines & {*range(node.body[0].lineno, node.end_lineno + 1)}


def _has_reason(node, lines):
    top = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    above = lines[top - 2].strip() if top > 1 else ""
    _, mark, beside = lines[node.lineno - 1].partition("  # ")
    reasons = [above.removeprefix("#")] if above.startswith("#") else []
    return any(
        len(reason.split()) > 2 and "noqa" not in reason
        for reason in [*reasons, *([beside] if mark else [])]
    )


@rule
def formulas_are_written_once(house):
    """No two functions have the same body, up to the names of variables."""
    first = {}
    for source in house.python("skdyn/"):
        for node in source.nodes:
            if isinstance(node, FUNCTIONS) and len(_body_lines(source, node)) >= SHORTEST_COPY:
                here = f"{source.path}:{node.name}"
                other = first.setdefault(_without_names(node), here)
                if other != here:
                    yield source.path, node.lineno, f"{node.name} is a copy of {other}"


def _without_names(function):
    """Dump the body of a function, with its variables numbered in the order of their use."""
    own = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    body = function.body[ast.get_docstring(function) is not None :]
    names = [one for node in body for one in ast.walk(node) if isinstance(one, ast.Name)]
    own |= {one.id for one in names if isinstance(one.ctx, ast.Store)}
    order = list(dict.fromkeys(one.id for one in names if one.id in own))
    text = "".join(map(ast.dump, body))
    return re.sub(
        r"Name\(id='(\w+)'",
        lambda found: f"Name({order.index(found[1]) if found[1] in own else found[1]}",
        text,
    )


# --------------------------------------------------------------------- 7: made once in fit


@file_rule("skdyn/")
def functions_take_settings(source):
    """No function with an argument `estimator` reads a parameter, an attribute without "_"."""
    for node in source.nodes:
        if not isinstance(node, FUNCTIONS):
            continue
        inner = [one for one in ast.walk(node) if isinstance(one, ast.Attribute | ast.Call)]
        given = {one.arg for one in ast.walk(node.args) if _is_estimator(one)}
        called = {id(one.func) for one in inner if isinstance(one, ast.Call)}
        read = {
            one.attr
            for one in inner
            if isinstance(one, ast.Attribute) and dotted(one.value) in given
            if id(one) not in called and not one.attr.endswith("_") and not is_private(one.attr)
        }
        read |= {
            one.args[1].value
            for one in inner
            if isinstance(one, ast.Call) and dotted(one.func) == "getattr" and len(one.args) > 1
            if dotted(one.args[0]) in given and is_text(one.args[1])
            if not one.args[1].value.endswith("_")
        }
        if read:
            yield node.lineno, f"{node.name} reads parameters of an estimator: {sorted(read)}"


def _is_estimator(node):
    """Whether an argument is an estimator, by its name or its annotation."""
    if not isinstance(node, ast.arg):
        return False
    kind = ast.unparse(node.annotation) if node.annotation else ""
    return node.arg in ("estimator", "regressor") or bool(
        re.search(r"\b(BaseEstimator|DyNeMoEstimator|NEMSRegressor)\b", kind)
    )


# ------------------------------------------------------------------- 8: one line in a registry


@rule
def layers_are_named_in_their_room(house):
    """Outside nems/layers no file names a class of layers, by import, attribute or text."""
    names = _layer_names(house)
    for source in house.python("skdyn/"):
        if source.path.startswith("skdyn/nems/layers/"):
            continue
        used = [(line, name) for line, name, _ in source.imports if is_within(name, "skdyn")]
        for node in source.nodes:
            name = source.full_name(node)
            if isinstance(node, ast.Attribute) and is_within(name, "skdyn"):
                used.append((node.lineno, name))
            elif is_text(node) and re.fullmatch(r"[\w.]+", node.value):
                used.append((node.lineno, node.value))
        for line, name in used:
            if name.split(".")[-1] in names:
                yield source.path, line, f"names the layer {name}"


def _layer_names(house):
    """Return the public classes in nems/layers, and their other names, without the shared ones."""
    names = set()
    for source in house.python("skdyn/nems/layers/"):
        if source.path.endswith(("/base.py", "/description.py")):
            continue
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not is_private(node.name):
                names.add(node.name)
            elif isinstance(node, ast.Assign) and dotted(node.value) in names:
                names |= {dotted(one) for one in node.targets}
    return names


@file_rule("skdyn/")
def choices_are_made_in_their_place(source):
    """Only the folder or file of solvers and losses compares their names.

    A comparison with one name counts, and so does a list or a dict of two or more.
    """
    for kind, (names, place) in CHOICES.items():
        if source.path.startswith(place):
            continue
        for node in source.nodes:
            compared, listed = names & _compared(node), names & _members(node)
            if compared or len(listed) > 1:
                named = ", ".join(sorted(compared or listed))
                yield node.lineno, f"distinguishes a {kind} by name: {named}"


def _compared(node):
    if isinstance(node, ast.MatchValue):
        return {node.value.value} if is_text(node.value) else set()
    if not isinstance(node, ast.Compare):
        return set()
    sides = [node.left, *node.comparators]
    return {side.value for side in sides if is_text(side)}.union(*map(_members, sides))


def _members(node):
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return {one.value for one in node.elts if is_text(one)}
    return {one.value for one in node.keys if is_text(one)} if isinstance(node, ast.Dict) else set()


# --------------------------------------------------------------------------- the whole house


@rule
def files_are_named(house):
    for source in house.python("skdyn/"):
        if source.path not in NAMED_FILES:
            yield source.path, 1, "is not in ROOMS; move it to a room, or add it there"


@rule
def named_files_exist(house):
    for path in sorted((NAMED_FILES | set(OPTIONAL_PACKAGES)) - set(house.sources)):
        yield path, 1, "is named in ROOMS, but does not exist"


@file_rule("skdyn/", "examples/", "benchmarks/")
def random_numbers_have_generators(source):
    for line, name, _ in source.imports:
        drawn = name.removeprefix("numpy.random.")
        if is_within(name, "random") or (drawn != name and drawn not in OWN_GENERATORS):
            yield line, f"{name} is global"
    for node in source.nodes:
        name = dotted(node)
        parts = name.split(".")
        if parts[:2] in (["np", "random"], ["numpy", "random"]) and parts[2:]:
            if parts[2] not in OWN_GENERATORS:
                yield node.lineno, f"{name} is global"
        elif parts[0] == "torch" and parts[-1] in GLOBAL_TORCH:
            yield node.lineno, f"{name} is global"
        elif isinstance(node, ast.Call):
            yield from _undirected_draw(node)


def _undirected_draw(call):
    name = dotted(call.func)
    parts, given = name.split("."), {keyword.arg for keyword in call.keywords}
    torch_draw = parts[-1] in TORCH_DRAWS and (parts[0] == "torch" or parts[-1].endswith("_"))
    if torch_draw and "generator" not in given:
        yield call.lineno, f"{name} without generator= draws from torch's global generator"
    if parts[-1] == "rvs" and "random_state" not in given:
        yield call.lineno, f"{name} without random_state= draws from NumPy's global generator"
    if parts[0] in ("torch", "nn", "functional", "F") and "dropout" in parts[-1].lower():
        yield call.lineno, f"{name} draws from torch's global generator"


@file_rule("skdyn/")
def only_runtime_packages(source):
    """A function may import a package that only its caller can need, such as pandas."""
    known = sys.stdlib_module_names | RUNTIME_PACKAGES | {"sklearn", "skdyn"}
    optional = OPTIONAL_PACKAGES.get(source.path, {})
    for line, name, is_late in source.imports:
        package = name.split(".")[0]
        if package not in known and not (package in optional and is_late):
            yield line, f"{name} is not one of the packages that skdyn runs on"


@file_rule("skdyn/__init__.py")
def front_door_only_names(source):
    """The public names are those in the lists for type checkers, for the import, and `__all__`."""
    lists = {}
    for node in source.tree.body[1:]:
        target = dotted(node.targets[0]) if isinstance(node, ast.Assign) else ""
        if isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING":
            lists["TYPE_CHECKING"] = {
                (one.asname or one.name, import_.module)
                for import_ in node.body
                for one in import_.names
            }
        elif target in ("__all__", "HOMES"):
            lists[target] = ast.literal_eval(node.value)
        elif isinstance(node, ast.ImportFrom):
            if node.module.split(".")[0] not in sys.stdlib_module_names | {"__future__"}:
                yield node.lineno, f"{ast.unparse(node)} is imported at once"
        elif target != "__version__" and getattr(node, "name", "") not in LAZY:
            yield node.lineno, f"{ast.unparse(node)} is no public name"
    names, homes = lists.get("__all__", []), lists.get("HOMES", {})
    if lists.get("TYPE_CHECKING", set()) != {*homes.items()} or names != sorted(homes):
        yield 1, f"the lists of names differ: {lists}"


@file_rule("skdyn/")
def names_are_words(source):
    """No public name of one letter but X and y: functions, classes, parameters, attributes."""
    for line, name in _public_names(source.tree):
        if len(name) == 1 and name not in "Xy_":
            yield line, f"the public name {name!r} has one letter"


@file_rule("skdyn/")
def words_are_the_same(source):
    """One name for the sampling frequency, and errors that advise without "do"."""
    for line, name in _public_names(source.tree):
        if "sampling_rate" in name:
            yield line, f"the public name {name!r} has to say sampling_frequency"
    for node in source.nodes:
        if isinstance(node, ast.Raise):
            for one in filter(is_text, ast.walk(node)):
                if re.search(r"(^|[;:,.] )do [a-z]", one.value):
                    yield one.lineno, f"advises with 'do': {one.value!r}"


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
            yield from ((node.lineno, one.id) for one in targets if isinstance(one, ast.Name))


@rule
def places_stay_out(house):
    """No text is right on one machine only, or names the place that packages come from."""
    folder = re.compile(r"(?<![\w./-])/(work|root|opt|home|Users)(?![\w-])")
    registry = re.compile(r"https?://[\w.-]*(pypi|pythonhosted|anaconda|conda|pytorch\.org/whl)")
    for path, source in house.sources.items():
        for number, line in enumerate(source.text.splitlines(), start=1):
            for found in [*folder.finditer(line), *registry.finditer(line)]:
                yield path, number, f"names {found.group()}"
