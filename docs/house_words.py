"""Count turns of phrase that the project avoids: `python docs/house_words.py [REVISION]`.

Without a revision, the working tree is searched. CONTRIBUTING.md describes the style.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A phrase to avoid, as a regular expression, and better words.
PHRASES = {
    r"what goes on in": "describes",
    r"\bwhat for which question": "which tool for which question",
    r"\b(is|are|was|were) told\b": "receives",
    r"\btells?\b(?! (them |it |you |us )?apart)": "reports",
    r"\btold\b": "reported",
    r"\bwill do\b(?! (so|the|this|that|it))": "is accepted",
    r"\bin place of\b": "instead of",
    r"\bby itself\b": "automatically",
    r"\bone below the other\b": "concatenated",
    r"\bwhat came of\b": "the result of",
    r"\bwhat there is to\b": "the starting point",
    r"\blessons?\b": "pretraining",
    r"\btaught\b": "pretrained",
    r"\b(take_care|NOBODY)\b": "use_jitter, NO_CALLBACK",
    r"\bnobody\b": "name the subject",
    r"\bif it is no\b": "if the file was not",
    r"\bby heart\b": "overfit",
    r"\bno matter of\b": "unrelated to",
    r"\bdo (run|use|leave|give|pass|call|set)\b": "the imperative",
    r"\bshall\b": "must",
    r"\bwhat is thought of\b": "prior",
    r"\bof one's own\b": "custom",
    r"\bof your own\b": "custom",
    r"\bthe ground (of|on which)\b": "base class",
    r"\bwalks from\b": "goes from",
    r"\bbut for\b": "except",
    r"\bnought\b": "zero",
    r"\bthat is all\b": "say it once",
    r"(?<=[.:] )(What|Who|Whose) (?![^.?!]{0,200}\?)": "subject first",
}
SUFFIXES = {".py", ".md", ".rst", ".toml", ".cfg", ".txt", ""}


def texts(revision):
    """Yield path and text of each file at a revision, or in the working tree."""
    git = ["git", "-C", str(ROOT)]
    listing = [*git, "ls-tree", "-r", "--name-only", revision] if revision else [*git, "ls-files"]
    for name in subprocess.run(
        listing, check=True, capture_output=True, text=True
    ).stdout.splitlines():
        if Path(name).suffix not in SUFFIXES or name == "docs/house_words.py":
            continue
        if revision:
            shown = subprocess.run([*git, "show", f"{revision}:{name}"], capture_output=True)
            yield name, shown.stdout.decode("utf-8", "replace")
        elif (ROOT / name).exists():
            yield name, (ROOT / name).read_text(encoding="utf-8", errors="replace")


def count(revision=None):
    """Return how often each phrase occurs, and in which files."""
    found, places = Counter(), Counter()
    for name, text in texts(revision):
        # A phrase may run over the end of a line, in comments too.
        joined = re.sub(r"\s*\n\s*(# )?", " ", text)
        for phrase in PHRASES:
            number = len(re.findall(phrase, joined, flags=re.IGNORECASE))
            found[phrase] += number
            places[name] += number
    return found, places


def main():
    """Print the counts."""
    found, places = count(sys.argv[1] if len(sys.argv) > 1 else None)
    for phrase, better in PHRASES.items():
        print(f"{found[phrase]:5}  {phrase:45}  {better}")
    print(f"{found.total():5}  in all")
    print("most in:", ", ".join(f"{name} ({number})" for name, number in places.most_common(12)))


if __name__ == "__main__":
    main()
