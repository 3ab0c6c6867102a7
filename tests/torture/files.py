"""Damaged and malicious files: the reaction of `skdyn.persistence.load` to each."""

import io
import json
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from skdyn._archive import seal
from skdyn.persistence import LoadError, load
from tests.torture.children import in_child

# Script that is inserted into text of representations.
SCRIPT = '"><img src=x onerror=alert(1)>'
# Audit events of forbidden actions. Modules that `load` imports are in the installed packages.
HARMFUL = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.connect",
)
HARMFUL += ("shutil.rmtree", "os.remove", "os.rename", "os.mkdir", "ctypes.dlopen", "os.putenv")

CALLS = [
    ("os", "system"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("subprocess", "Popen"),
    ("posix", "system"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("numpy", "save"),
    ("numpy", "fromfile"),
    ("shutil", "rmtree"),
    ("importlib", "import_module"),
    ("pickle", "loads"),
    ("skdyn.nems.parameter", "Parameter"),
    ("skdyn.simulation", "MixedSineMVN"),
    ("numpy", "void"),
]
LOADERS = ["ObjectNode", "ListNode", "DictNode", "TypeNode", "FunctionNode", "NdArrayNode"]
LOADERS += ["ConstructorFromReduceNode", "PartialNode", "MethodNode", "TupleNode", "LossNode"]


# ----------------------------------------------------------------------------- taking apart


def parts_of(content):
    """Return the members of a file, and its schema."""
    with ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        comment = archive.comment
    return members, json.loads(members.pop("schema.json")), comment


def put_together(members, schema, comment=None):
    """Create a file; without a comment it is sealed anew, as an attacker would do."""
    file = io.BytesIO()
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        text = schema if isinstance(schema, str) else json.dumps(schema)
        archive.writestr("schema.json", text)
        archive.comment = comment or b""
    return file.getvalue() if comment else seal(file.getvalue(), "skdyn 0.1.0")


def nodes_of(schema):
    """Return all nodes of a schema."""
    found, stack = [], [schema]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            found += [one] if "__loader__" in one else []
            stack += list(one.values())
        elif isinstance(one, list):
            stack += one
    return found


# -------------------------------------------------------------------------------- mutations


def flip(rng, content, other):
    damaged = bytearray(content)
    for place in rng.integers(len(content), size=1 + rng.integers(3)):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


def cut(rng, content, other):
    start, stop = np.sort(rng.integers(len(content), size=2))
    kinds = [content[:start], content[start:], content[:start] + content[stop:]]
    kinds += [content + rng.bytes(9), content[:start] + rng.bytes(stop - start) + content[stop:]]
    kinds += [content[:start] + other[start:], b"", other[:start] + content]
    mutant = kinds[rng.integers(len(kinds))]
    # Files may begin with the same bytes, and a whole other file is not damaged.
    return content if mutant == other else mutant


def edit(rng, content, other, *, is_sealed=True):
    """Change the schema or swap members, with checksums that are right."""
    members, schema, comment = parts_of(content)
    nodes = nodes_of(schema)
    for _ in range(1 + rng.integers(2)):
        node = nodes[rng.integers(len(nodes))]
        twin = nodes[rng.integers(len(nodes))]
        kind = rng.integers(7)
        keys = list(node)
        key = keys[rng.integers(len(keys))]
        if kind == 0:
            del node[key]
        elif kind == 1:
            node[key] = [None, 0, -1, 1e308, "", [], {}, "x", True, [[]]][rng.integers(10)]
        elif kind == 2:
            node["__loader__"] = LOADERS[rng.integers(len(LOADERS))]
        elif kind == 3:
            node["__class__"], node["__module__"] = twin["__class__"], twin["__module__"]
        elif kind == 4 and members:
            names = list(members)
            one, two = names[rng.integers(len(names))], names[rng.integers(len(names))]
            members[one] = members[two]
        elif kind == 5 and isinstance(node.get("content"), dict) and node["content"]:
            names = list(node["content"])
            del node["content"][names[rng.integers(len(names))]]
        else:
            copied = json.loads(json.dumps(twin))
            node.clear()
            node.update(copied)
    return put_together(members, schema, None if is_sealed else comment)


def edit_without_seal(rng, content, other):
    return edit(rng, content, other, is_sealed=False)


def call(rng, content, other):
    """Replace a type by one that is harmful or takes memory."""
    members, schema, _ = parts_of(content)
    nodes = nodes_of(schema)
    node = nodes[rng.integers(len(nodes))]
    module, name = CALLS[rng.integers(len(CALLS))]
    loader = LOADERS[rng.integers(len(LOADERS))]
    arguments = _json_of(["echo harm > harmed", [10**9], {"shape": [10**9]}][rng.integers(3)])
    node.pop("__id__", None)
    node.update(__module__=module, __class__=name, __loader__=loader)
    if loader == "ConstructorFromReduceNode":
        node["content"] = _tuple_of([arguments, _json_of([10**9])])
    elif loader in ("ListNode", "TupleNode"):
        node["content"] = [arguments]
    elif loader == "PartialNode":
        function = {"__module__": module, "__class__": name, "__loader__": "FunctionNode"}
        node["content"] = dict.fromkeys(("func", "args", "kwds", "namespace"), function)
    elif loader == "MethodNode":
        node["content"] = {"func": "system", "obj": json.loads(json.dumps(nodes[0]))}
    return put_together(members, schema)


def _json_of(value):
    common = {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"}
    return {**common, "content": json.dumps(value), "is_json": True}


def _tuple_of(nodes):
    common = {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode"}
    return {**common, "content": nodes}


def bomb(rng, content, other):
    """Ask for much more memory or time than the file has bytes."""
    members, schema, _ = parts_of(content)
    kind = rng.integers(7)
    arrays = [node for node in nodes_of(schema) if node.get("type") == "numpy"]
    if kind == 0:
        members["zeros.npy"] = bytes(2**28)
    elif kind == 1:
        members["zeros.bin"] = bytes(2**25)
        one = {"__class__": "bytes", "__module__": "builtins", "__loader__": "BytesNode"}
        schema["more"] = [{**one, "file": "zeros.bin"} for _ in range(99)]
    elif kind == 2:
        header = io.BytesIO()
        shape = (int(rng.integers(10**8, 10**10)), 8)
        np.lib.format.write_array_header_1_0(
            header, {"shape": shape, "fortran_order": False, "descr": "<f8"}
        )
        name = arrays[rng.integers(len(arrays))]["file"]
        members[name] = header.getvalue() + bytes(64)
    elif kind == 3:
        return put_together(members, "[" * 10**6 + "]" * 10**6)
    elif kind == 4:
        return put_together(members, '{"__loader__": "ListNode", "content": ' * 5 * 10**4)
    elif kind == 5:
        text = json.dumps(schema)
        for name in ("n_layers", "n_units", "n_modes", "n_channels", "n_samples", "_shape"):
            at = text.find(f'"{name}": {{')
            if at >= 0:
                place = text.find('"content": "', at) + len('"content": "')
                end = text.find('"', place)
                text = text[:place] + str(10 ** int(rng.integers(4, 9))) + text[end:]
        return put_together(members, text)
    else:
        return put_together(members, json.dumps([schema] * 1) + " " * 2**24)
    return put_together(members, schema)


def hide(rng, content, other):
    """Add an attribute that hides a method or a property, or leads to links."""
    members, schema, _ = parts_of(content)
    objects = [n for n in nodes_of(schema) if n["__loader__"] == "ObjectNode"]
    objects = [n for n in objects if n.get("content", {}).get("__loader__") == "DictNode"]
    node = objects[0] if rng.random() < 0.7 else objects[rng.integers(len(objects))]
    names = [
        "predict",
        "transform",
        "score",
        "fit",
        "_repr_html_",
        "_doc_link_template",
        "evaluate",
    ]
    names += ["_doc_link_module", "__class__", "__dict__", "get_params", "_get_doc_link", "values"]
    names += ["_repr_html_inner", "_repr_mimebundle_", "__sklearn_tags__", "_parameter_constraints"]
    name = names[rng.integers(len(names))]
    ufunc = {"__class__": "sin", "__module__": "numpy", "__loader__": "FunctionNode"}
    node["content"]["content"][name] = [ufunc, _json_of(SCRIPT)][rng.integers(2)]
    text = {"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode"}
    node["content"]["key_types"]["content"].append(text)
    return put_together(members, schema)


def script(rng, content, other):
    """Replace text by HTML."""
    members, schema, _ = parts_of(content)
    texts = [n for n in nodes_of(schema) if n["__loader__"] == "JsonNode"]
    texts = [n for n in texts if str(n.get("content", "")).startswith('"')] or texts
    for _ in range(1 + rng.integers(3)):
        texts[rng.integers(len(texts))]["content"] = json.dumps(SCRIPT)
    return put_together(members, schema)


# Damage can occur by accident; the others need an attacker who rewrites checksums and the seal.
DAMAGE = {"flip": flip, "cut": cut, "edit without seal": edit_without_seal}
INTENT = {"edit": edit, "call": call, "bomb": bomb, "hide": hide, "script": script}
KINDS = {**DAMAGE, **INTENT}


# --------------------------------------------------------------------------------- outcomes


def results_of(estimator, X):
    """Return the results of an estimator, as bytes."""
    methods = ("transform", "predict", "score_samples")
    methods = [getattr(estimator, name) for name in methods if hasattr(estimator, name)]
    found = [np.asarray(method(X)).tobytes() for method in methods]
    return b"".join(found) or repr(estimator).encode()


def outcome_of(path, name, originals, X):
    """Load a file, and return the outcome."""
    try:
        estimator = load(path)
    except LoadError as error:
        return "refused" if str(path) in str(error) else "refused without its path"
    except Exception as error:
        return f"ESCAPED: {type(error).__name__}"
    try:
        if SCRIPT in getattr(estimator, "_repr_html_", lambda: "")():
            return "SCRIPT"
        same = results_of(estimator, X) == results_of(originals[name], X)
    except Exception:
        return "error at first use"
    return "same" if same else "different"


def try_files(files, originals, X, folder):
    """Load files in a child process; return outcomes, seconds, megabytes and forbidden actions."""
    return in_child(_try_files, files, originals, X, folder)


def _try_files(files, originals, X, folder):
    events, outcomes, seconds = [], [], []

    def watch(event, arguments):
        writes = (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        )
        if is_watched[0] and (event.startswith(HARMFUL) or writes):
            events.append(f"{event} {arguments!r}"[:200])

    is_watched = [False]
    sys.addaudithook(watch)
    path = Path(folder, "mutant.skops")
    warnings.simplefilter("ignore")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in files:
        path.write_bytes(content)
        start = time.perf_counter()
        is_watched[0] = True
        outcomes.append(outcome_of(path, name, originals, X))
        is_watched[0] = False
        seconds.append(time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return outcomes, seconds, grown / 1024, events


def run(originals, contents, X, n_files, folder, *, seed=0, per_child=50):
    """Try mutants of all kinds; return counts by kind and outcome, and the worst of the rest."""
    rng = np.random.default_rng(seed)
    names, kinds = list(contents), list(KINDS)
    counts, slowest, largest, events = Counter(), 0.0, 0.0, []
    for first in range(0, n_files, per_child):
        files, labels = [], []
        for number in range(first, min(first + per_child, n_files)):
            kind = kinds[number % len(kinds)]
            name, other = (names[rng.integers(len(names))] for _ in range(2))
            files.append((name, KINDS[kind](rng, contents[name], contents[other])))
            labels.append(kind)
        outcomes, seconds, megabytes, tried = try_files(files, originals, X, folder)
        counts.update(zip(labels, outcomes, strict=True))
        slowest, largest = max(slowest, *seconds), max(largest, megabytes)
        events += tried
    return counts, slowest, largest, events


def broken(counts, slowest, largest, events):
    """Say which promises are broken."""
    wrong = [f"{n} of {kind}: {what}" for (kind, what), n in counts.items() if what.isupper()]
    wrong += [f"{n} of {k}: {w}" for (k, w), n in counts.items() if w.startswith("ESCAPED")]
    wrong += [f"{n} of {k}: {w}" for (k, w), n in counts.items() if w == "refused without its path"]
    for kind in DAMAGE:
        wrong += [
            f"{kind}: {what}" for what in ("different", "error at first use") if counts[kind, what]
        ]
    wrong += [f"executed: {event}" for event in events]
    wrong += [f"{slowest:.1f} s"] if slowest > 20 else []
    return wrong + ([f"{largest:.0f} MB"] if largest > 500 else [])
