"""Reading the repository: imports, lines of code, and the graph of imports between files."""

import ast
import io
import tokenize
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (ast.Module, ast.ClassDef, *FUNCTIONS)
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
}


class Import(NamedTuple):
    line: int
    name: str  # full and dotted, for relative imports too
    is_late: bool  # runs when a function is called


@dataclass(frozen=True)
class Source:
    """A text file and, if it is Python, its syntax tree."""

    path: str
    text: str

    @cached_property
    def tree(self):
        return ast.parse(self.text)

    @cached_property
    def nodes(self):
        return list(ast.walk(self.tree))

    @cached_property
    def imports(self):
        """All imports: under TYPE_CHECKING, inside functions and through importlib, too."""
        functions = [node for node in self.nodes if isinstance(node, FUNCTIONS)]
        late = {id(node) for function in functions for node in ast.walk(function)}
        return [
            Import(node.lineno, name, id(node) in late)
            for node in self.nodes
            for name, _ in self._imported(node)
        ]

    @cached_property
    def names(self):
        """The dotted name of each imported name."""
        return {alias: name for node in self.nodes for name, alias in self._imported(node)}

    def _imported(self, node):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield one.name, one.asname or one.name
        elif isinstance(node, ast.ImportFrom):
            package = self.path.split("/")[:-1]
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{base}.{one.name}", one.asname or one.name) for one in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith(
            ("import_module", "__import__")
        ):
            yield from ((one.value, one.value) for one in node.args if is_text(one))

    def full_name(self, node):
        """The dotted name of an expression after its first part is looked up in the imports."""
        name = dotted(node)
        first, _, rest = name.partition(".")
        return f"{self.names[first]}.{rest}" if rest and first in self.names else name

    @cached_property
    def code_lines(self):
        """Numbers of the lines that hold code: no docstrings, comments and blank lines."""
        lines = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in NO_CODE:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in self.nodes:
            if isinstance(node, SCOPES) and ast.get_docstring(node) is not None:
                lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
        return lines


class House:
    """The files of the repository.

    Parameters
    ----------
    texts : dict of str
        Text of each file by its path, relative to the repository.
    """

    def __init__(self, texts):
        self.sources = {path: Source(path, text) for path, text in sorted(texts.items())}

    def python(self, *folders):
        """Return the Python files in the given folders; without folders, all."""
        return [
            source
            for path, source in self.sources.items()
            if path.endswith(".py") and (not folders or path.startswith(folders))
        ]

    def home(self, name, seen=frozenset()):
        """Return the file that defines a dotted name, None if it is not in the repository.

        Names that an `__init__` imports are followed to the file that defines them.
        """
        parts = name.split(".")
        for n_parts in range(len(parts), 0, -1):
            stem, rest = "/".join(parts[:n_parts]), parts[n_parts:]
            if f"{stem}.py" in self.sources:
                return f"{stem}.py"
            package = self.sources.get(f"{stem}/__init__.py")
            if package is not None:
                origin = package.names.get(rest[0]) if rest else None
                if origin is None or name in seen:
                    return package.path
                return self.home(".".join([origin, *rest[1:]]), seen | {name}) or package.path
        return None

    @cached_property
    def imports(self):
        """For each file of skdyn the files it imports, each with the first such import."""
        graph = {}
        for source in self.python("skdyn/"):
            graph[source.path] = {}
            for one in source.imports:
                home = self.home(one.name)
                if home not in (None, source.path):
                    graph[source.path].setdefault(home, one)
        return graph

    @cached_property
    def rooms(self):
        """For each file or folder the neighbours in its folder that it imports."""
        graph = {}
        for path, homes in self.imports.items():
            for home, one in homes.items():
                left, right = path.split("/"), home.split("/")
                n_shared = next(
                    i for i, pair in enumerate(zip(left, right, strict=False)) if len({*pair}) > 1
                )
                ends = ["/".join(parts[: n_shared + 1]) for parts in (left, right)]
                graph.setdefault(ends[0], {}).setdefault(ends[1], f"{path}:{one.line}")
        return graph


def shortest_path(graph, start, is_end):
    """Return the nodes from start to the nearest other node with is_end, None if there is none."""
    before, queue = {start: None}, deque([start])
    while queue:
        node = queue.popleft()
        if node != start and is_end(node):
            path = [node]
            while before[path[0]] is not None:
                path.insert(0, before[path[0]])
            return path
        for following in sorted(set(graph.get(node, ())) - set(before)):
            before[following] = node
            queue.append(following)
    return None


def cycles(graph):
    """Return the shortest cycle through each edge, once each, from its first node on."""
    found = set()
    for node, following in graph.items():
        for one in following:
            path = shortest_path(graph, one, lambda end, node=node: end == node)
            if path is not None:
                first = path.index(min(path))
                found.add((*path[first:], *path[:first]))
    return [[*cycle, cycle[0]] for cycle in sorted(found, key=lambda cycle: (len(cycle), cycle))]


def dotted(node):
    """Return "a.b.c" for such an expression; an expression that is not a name counts as ""."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def is_private(name):
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def is_within(name, module):
    return name == module or name.startswith(f"{module}.")
