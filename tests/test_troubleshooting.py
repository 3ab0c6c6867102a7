"""The page on warnings and errors quotes the messages that the package has."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import skdyn

PACKAGE = Path(skdyn.__file__).parent
PAGE = PACKAGE.parent / "docs" / "troubleshooting.rst"
# Words in front of a quotation that a message takes from its arguments.
MOST_WORDS = 3


def titles():
    """Quoted beginnings of messages; those of other packages and of no message are left out."""
    lines = PAGE.read_text(encoding="utf-8").split("\n")
    end = lines.index("Without a message")
    found = [
        line.replace("\\", "")
        for line, rule in pairwise(lines[:end])
        if rule and not rule.strip("~") and len(rule) == len(line)
    ]
    quoted = [title for title in found if not title.endswith("(scikit-learn)")]
    return [part.strip() for title in quoted for part in title.split(";")]


def text_of(node):
    """The text of a string, with an ellipsis for each inserted value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "…"


@pytest.fixture(scope="module")
def messages():
    """All strings of the package, one a line."""
    nodes = [
        node
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)
    ]
    return "\n".join(map(text_of, nodes))


@pytest.mark.parametrize("title", titles() if PAGE.exists() else [])
def test_troubleshooting_quotes_messages_of_the_package(title, messages):
    # Between ellipses; commas next to one belong to the omitted text.
    for part in (one.strip(" ,…") for one in re.split("…", title)):
        words = part.split(" ")
        endings = [" ".join(words[n:]) for n in range(min(MOST_WORDS, len(words) - 1) + 1)]
        assert any(ending in messages for ending in endings), part


def warned():
    """Beginnings of the warnings with a literal text in the call."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name in ("warn", "warnings.warn") and text_of(node.args[0]).strip("…"):
                yield text_of(node.args[0])


@pytest.mark.parametrize("message", list(warned()) if PAGE.exists() else [])
def test_troubleshooting_has_every_warning(message):
    assert any(message.startswith(title) for title in titles()), message
