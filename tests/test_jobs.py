"""The jobs of the guide take few lines; tests/test_docs.py runs them."""

import ast
import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "jobs.rst"
# Statements of a job, except imports and the replacement for files in its first block.
LENGTHS = {
    "Eyes open and closed: EEG with MNE": 17,
    "Which run, which model": 7,
    "Seven people at rest: fMRI, test and retest": 12,
    "Neurons and natural sounds: encoding models": 7,
}
# Jobs with a first block that replaces files.
SIMULATED = [title for title in LENGTHS if re.search("EEG|sounds", title)]


def blocks_of(text):
    found = re.findall(r"\.\. code-block:: python\n\n((?:    .*\n|\n)+)", text)
    return [textwrap.dedent(block) for block in found]


def jobs():
    parts = re.split(r"\n(.+)\n=+\n", PAGE.read_text())
    return {title: blocks_of(text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_jobs_have_the_stated_length():
    found = jobs()
    assert set(LENGTHS) <= set(found)
    for title, most in LENGTHS.items():
        blocks = found[title][title in SIMULATED :]
        lines = [node for block in blocks for node in ast.parse(block).body]
        names = {node.id for line in lines for node in ast.walk(line) if hasattr(node, "id")}
        assert len([one for one in lines if not isinstance(one, ast.ImportFrom)]) <= most
        assert "np" not in names  # nothing is left to do by hand
