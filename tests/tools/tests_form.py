"""Checks that tests run, end, and compare values; ``form`` prints the problems.

Rule 1: a test isn't nested in another function, where pytest doesn't find it. A function that draws
its arguments (``@given``) may be nested if the outer function calls it.
Rule 2: a test compares causes, states and parameters. Sentences are on the pages of GOLDEN; only
tests of users' output (READERS) may contain them.
Rule 3: a test module starts processes by ``tests.processes.started``, which ends them, and code
after a ``yield`` waits only with a time limit of its own: if a fixture's teardown hangs, the worker
exits with all its remaining tests.
Rule 4: nothing follows ``if __name__ == "__main__"``: such code is missing only when the module is
run, which neither tests nor linters detect.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from .problem import Files

GOLDEN = tuple(
    f"tests/unit/{package}/words.txt" for package in ("causes", "diagnosis", "explain", "nodes")
)
READERS = (
    "tests/node/",
    "tests/cluster/",
    "tests/page/",
    "tests/kit/",
    "tests/unit/causes/",
    "tests/unit/cli/",
    "tests/unit/config/",
    "tests/unit/check/test_finding.py",
)
"""Tests of whole programs, of the page, and of code that writes or lists sentences. Errors of flags
and files are only sentences."""
WORDS_MIN = 5
"""This many consecutive words are part of a sentence; names of flags and errors have fewer."""
_WORD = re.compile(r"[a-z']+(?:[.][a-z0-9']+)*")


def find_nested(path: str, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Yield the tests that are nested in a function."""
    for outer in nodes:
        if not isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        parts = list(ast.walk(outer))
        called = {
            node.func.id
            for node in parts
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        for inner in parts[1:]:
            if not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            draws = any("given" in ast.unparse(one) for one in inner.decorator_list)
            if (inner.name.startswith("test_") or draws) and inner.name not in called:
                yield f"{path}:{inner.lineno}: {inner.name} is nested, so pytest doesn't run it"


def find_late(path: str, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Yield definitions that follow a module's main block."""
    for node in nodes[:1]:
        for block, later in pairwise(node.body if isinstance(node, ast.Module) else ()):
            if isinstance(block, ast.If) and ast.unparse(block.test).startswith("__name__ =="):
                yield f"{path}:{later.lineno}: it's missing where the module runs: put it above"


def find_endless(path: str, nodes: Sequence[ast.AST]) -> Iterator[str]:
    """Yield processes that aren't ended, and fixtures whose teardown may hang."""
    for node in nodes:
        match node:
            case ast.Call(ast.Name("Popen") | ast.Attribute(attr="Popen")) if "/test_" in path:
                yield f"{path}:{node.lineno}: start it by tests.processes.started, which ends it"
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) if name[:5] != "test_":
                for part in _waits_after_yield(node):
                    yield f"{path}:{part.lineno}: this end of a fixture has no time limit"


def _waits_after_yield(function: ast.AST) -> Iterator[ast.Call]:
    """Yield waits without a time limit after the first yield, unless awaited: a loop ends those."""
    parts = list(ast.walk(function))
    awaited = {id(inner) for one in parts if isinstance(one, ast.Await) for inner in ast.walk(one)}
    yields = [part.lineno for part in parts if isinstance(part, ast.Yield)]
    for part in parts if yields else ():
        match part:
            case ast.Call(ast.Attribute(_, "wait" | "communicate" | "join"), [], []):
                if part.lineno > min(yields) and id(part) not in awaited:
                    yield part


def has_sentence(nodes: Sequence[ast.AST], golden: str) -> bool:
    """Return whether a text of a module has WORDS_MIN consecutive words of the golden pages.

    Args:
        golden: The golden pages' words, from :func:`words_of`.
    """
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and _is_sentence(node.value, golden)
        for node in nodes
    )


def words_of(text: str) -> str:
    """Return the words of a text, each with a space on both sides."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _is_sentence(text: str, golden: str) -> bool:
    words = _WORD.findall(text.lower())
    rows = (words[n : n + WORDS_MIN] for n in range(len(words) - WORDS_MIN + 1))
    return any(f" {' '.join(row)} " in golden for row in rows)


def find_sentences(found: Collection[str]) -> Iterator[str]:
    """Yield a line for each module that contains sentences but isn't in READERS."""
    for path in sorted(found):
        if not path.startswith(READERS):
            yield f"{path}: it has words of the golden pages: compare causes, states and parameters"


def find_problems(root: Path, parsed: Files) -> Iterator[str]:
    """Yield all problems of a checkout's tests, one line each."""
    golden = words_of("\n".join((root / page).read_text() for page in GOLDEN))
    found = []
    for path, nodes in parsed.items():
        # The simulation waits in simulated time, so its waits need no time limit.
        if path.startswith("tests/") and not path.startswith("tests/simulation/"):
            yield from find_endless(path, nodes)
        yield from find_late(path, nodes)
        if path.startswith("tests/") and "/test_" in path:
            yield from find_nested(path, nodes)
            if has_sentence(nodes, golden):
                found.append(path)
    yield from find_sentences(found)
