"""Checks what makes tests run, and what they compare.

Run it as ``python -m tests.tools.tests_form``; ``make form`` does. It prints a line per problem and
exits with status 1 if there is one.

Rule 1: a test isn't nested in another function, where pytest doesn't find it. A function that draws
its arguments (``@given``) may be, if the one around it calls it.
Rule 2: a test compares causes, states and parameters. Sentences are on the pages of GOLDEN; only
tests that read what users read (READERS) may have them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator

from .form import ROOT, read_modules

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
"""Tests of whole programs, of the page, and of what writes or lists sentences.

An error of a flag or file is one: it has no other form.
"""
WORDS_MIN = 5
"""So many words in a row are a part of a sentence; four occur in names of flags and errors."""
_WORD = re.compile(r"[a-z']+")


def find_nested(path: str, tree: ast.Module) -> Iterator[str]:
    """Yield the tests that are inside of a function."""
    for outer in ast.walk(tree):
        if not isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        called = {
            node.func.id
            for node in ast.walk(outer)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        for inner in ast.walk(outer):
            if inner is outer or not isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            draws = any("given" in ast.unparse(one) for one in inner.decorator_list)
            if (inner.name.startswith("test_") or draws) and inner.name not in called:
                yield f"{path}:{inner.lineno}: {inner.name} is nested, so pytest doesn't run it"


def has_sentence(tree: ast.Module, golden: str) -> bool:
    """Return whether a text of a module has WORDS_MIN words in a row that the golden pages have.

    Args:
        golden: By :func:`words_of`.
    """
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docstrings
        and _is_sentence(node.value, golden)
        for node in ast.walk(tree)
    )


def words_of(text: str) -> str:
    """Return the words of a text, each with a blank on both sides."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _is_sentence(text: str, golden: str) -> bool:
    words = _WORD.findall(text.lower())
    rows = (words[n : n + WORDS_MIN] for n in range(len(words) - WORDS_MIN + 1))
    return any(f" {' '.join(row)} " in golden for row in rows)


def find_sentences(found: Collection[str]) -> Iterator[str]:
    """Yield a line for each of the modules with sentences that may not have them."""
    for path in sorted(found):
        if not path.startswith(READERS):
            yield f"{path}: it has words of the golden pages: compare causes, states and parameters"


def main() -> int:
    """Check this checkout; return the exit status."""
    golden = words_of("\n".join((ROOT / page).read_text() for page in GOLDEN))
    modules = read_modules(ROOT, ("tests",))
    trees = {path: ast.parse(text) for path, text in modules.items() if "/test_" in path}
    found = {path for path, tree in trees.items() if has_sentence(tree, golden)}
    problems = [line for path, tree in trees.items() for line in find_nested(path, tree)]
    problems += find_sentences(found)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
