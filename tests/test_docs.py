"""The pages: public names are listed, code blocks run, links and pictures exist."""

import importlib
import pkgutil
import re
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import skdyn

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for pattern in ("*.rst", "*.md", "guide/*.rst", "guide/*.md")
    for page in DOCS.glob(pattern)
)
TEXTS = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
# Modules with public names but functions for internal use.
INTERNAL = {"skdyn.core", "skdyn.dynemo", "skdyn.sessions"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def public_names():
    """Yield each public name with the modules that export it."""
    found = [module.name for module in pkgutil.walk_packages(skdyn.__path__, "skdyn.")]
    for module in ["skdyn", *found]:
        if "._" in module or module.startswith(tuple(INTERNAL)):
            continue
        for name in getattr(importlib.import_module(module), "__all__", ()):
            yield module, name


def listed_names():
    """Names of the API page, each a pair of module and name."""
    module, listed = "", []
    for line in (DOCS / "api.rst").read_text(encoding="utf-8").splitlines():
        if line.startswith(".. currentmodule:: "):
            module = line.split()[-1]
        elif re.fullmatch(r"   [A-Za-z_]\w*", line):
            listed.append((module, line.strip()))
    return listed


def test_the_api_page_lists_every_public_name():
    listed = {id(getattr(importlib.import_module(module), name)) for module, name in listed_names()}
    places = {}
    for module, name in public_names():
        value = getattr(importlib.import_module(module), name)
        places.setdefault(id(value), []).append(f"{module}.{name}")
    # A name of a file below a room is public if the room itself exports it.
    rooms = {"skdyn", *(f"skdyn.{one.name}" for one in pkgutil.iter_modules(skdyn.__path__))}
    rooms |= {"skdyn.nems.layers"}
    text = (DOCS / "api.rst").read_text(encoding="utf-8")
    missing = [
        names
        for value, names in places.items()
        if any(one.rsplit(".", 1)[0] in rooms for one in names)
        and value not in listed
        and not any(f"``{one}``" in text for one in names)
    ]
    assert not missing


def test_the_api_page_lists_nothing_twice():
    listed = listed_names()
    assert len(listed) > 100
    assert len(set(listed)) == len(listed)


def blocks_of(path):
    """Code blocks of a page in Python, in order."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    found, lines, number = [], text.splitlines(), 0
    while number < len(lines):
        match = re.match(r"( *)\.\. code-block:: python$", lines[number])
        number += 1
        if match:
            block, depth = [], len(match[1])
            while number < len(lines) and (
                not lines[number].strip() or re.match(rf" {{{depth + 1}}}", lines[number])
            ):
                block.append(lines[number])
                number += 1
            # Line numbers of errors are those of the page.
            indent = min(len(one) - len(one.lstrip()) for one in block if one.strip())
            body = [one[indent:] for one in block]
            found.append("\n" * (number - len(block)) + "\n".join(body))
    return found


def shorter(program):
    """The same program with less data and fewer epochs, for blocks that take long."""
    program = program.replace("n_samples=10_000", "n_samples=1_000")
    return re.sub(r"(DyNeMoEstimator\(n_modes=3), random", r"\1, n_epochs=2, random", program)


WITH_CODE = [path for path in TEXTS if blocks_of(path)]


def test_pages_have_code():
    assert len(WITH_CODE) > 5
    assert ROOT / "README.md" in WITH_CODE


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page, one after the other, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "__main__"}
    with warnings.catch_warnings():
        if page.name in ("README.md", "start.rst"):
            warnings.simplefilter("ignore")  # fits of few epochs say so
        for block in blocks_of(page):
            exec(compile(shorter(block), str(page), "exec"), space)
    plt.close("all")


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        targets += re.findall(r"^```\{include\} (\S+)$", text, flags=re.MULTILINE)
    else:
        documents = re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", text)
        documents += re.findall(r":link: ([\w/]+)\n +:link-type: doc", text)
        targets = re.findall(r"^ *\.\. (?:image|figure):: (\S+)$", text, flags=re.MULTILINE)
        for document in documents:
            home = DOCS if document.startswith("/") else page.parent
            document = document.lstrip("/")
            if "auto_examples/" in document:
                script = document.split("auto_examples/")[1]
                assert script == "index" or (ROOT / "examples" / f"{script}.py").exists(), document
            else:
                assert any((home / f"{document}{end}").exists() for end in (".rst", ".md")), (
                    document
                )
    for target in targets:
        if not re.match(r"https?://", target):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [one for one in PAGES if one.suffix == ".rst"], ids=name_of)
def test_names_that_a_page_refers_to_exist(page):
    text = page.read_text(encoding="utf-8")
    labels = set()
    for other in PAGES:
        labels |= set(re.findall(r"^\.\. _([\w-]+):$", other.read_text("utf-8"), re.MULTILINE))
    for label in re.findall(r":ref:`(?:[^`<]*<)?([^`>]+)>?`", text):
        assert label in {*labels, "genindex", "search"}
    role = r":(?:class|func|meth|attr|mod|obj|data|exc):`(?:[^`<]*<)?[~!.]?([\w.]+)>?`"
    for name in re.findall(role, text):
        assert pkgutil.resolve_name(complete(name)) is not None


def complete(name):
    """The full name of an object, which pages may shorten."""
    return name if name.startswith(("skdyn", "sklearn", "numpy")) else f"skdyn.{name}"


def test_every_page_of_the_site_is_in_a_list():
    listed = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^\.\. toctree::\n((?:(?: +.*)?\n)*)", text, flags=re.MULTILINE):
            for line in block.splitlines():
                if line.strip() and not line.strip().startswith(":"):
                    listed.add((page.parent / line.strip()).resolve())
    pages = {page.with_suffix("") for page in PAGES} - {DOCS / "index"}
    assert pages <= listed


@pytest.mark.parametrize("picture", sorted(DOCS.glob("*.png")), ids=name_of)
def test_pictures_are_small_and_used(picture):
    assert 5_000 < picture.stat().st_size < 150_000
    assert any(picture.name in path.read_text(encoding="utf-8") for path in TEXTS)
