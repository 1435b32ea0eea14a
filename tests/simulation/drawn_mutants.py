"""Draws mutants from the product's code: each is one small change of one statement.

    source ──▶ changes (by kind) ──▶ changes in lines that a half runs ──▶ some of each kind

Rule 1: a change is named by its module and its number there, so another process can find it.
Rule 2: only lines that run within a function while seeds are simulated are changed.
Rule 3: kinds take turns when they are drawn, so frequent kinds don't displace rare ones.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = "userspace_proxy"

Edit = tuple[int, int, str]
"""The start and end in bytes, and the replacement."""

_COMPARED: Mapping[type[ast.cmpop], tuple[str, str, str]] = {
    ast.Lt: ("<", "<=", "off by one"),
    ast.LtE: ("<=", "<", "off by one"),
    ast.Gt: (">", ">=", "off by one"),
    ast.GtE: (">=", ">", "off by one"),
    ast.Eq: ("==", "!=", "condition"),
    ast.NotEq: ("!=", "==", "condition"),
    ast.Is: ("is", "is not", "condition"),
    ast.IsNot: ("is not", "is", "condition"),
    ast.In: ("in", "not in", "condition"),
    ast.NotIn: ("not in", "in", "condition"),
}
_OTHERS = {
    "up": "down",
    "client": "endpoint",
    "source": "destination",
    "first": "last",
    "min": "max",
    "read": "write",
    "local": "remote",
    "add": "discard",
    "before": "after",
    "any": "all",
    "append": "appendleft",
    "popleft": "pop",
    "oldest": "newest",
    "inside": "outside",
}
_OTHER_NAME = {**_OTHERS, **{other: one for one, other in _OTHERS.items()}}
# Kinds of removed statements, by words in them; the first match is used.
_MISSING: Sequence[tuple[str, str]] = (
    ("leak", r"close|unregister|remove|discard|release|give\(|forget|drop|del |\.clear|shut"),
    (
        "lost message",
        r"send\b|send_|report|notify|announce|publish|broadcast|wake|resume|put_nowait",
    ),
    ("time", r"deadline|timer|call_later|_at\b|\bnow\b|timeout|schedule"),
    ("counter", r"count|\+=|-=|note_|total|counters"),
)


class Change(NamedTuple):
    """One change of a module's source."""

    kind: str
    line: int
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class DrawnMutant:
    """The product with one change."""

    name: str
    """The module's name, for imports."""
    number: int

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def path(self) -> Path:
        return ROOT / f"{self.name.replace('.', '/')}.py"

    @property
    def label(self) -> str:
        return f"{self.name.partition('.')[2]}/{self.number}"

    @cached_property
    def change(self) -> Change:
        return changes(self.path.read_text())[self.number]

    def apply(self, source: str) -> str:
        return changed(source, changes(source)[self.number])

    def difference(self) -> tuple[str, str]:
        """Return the lines that the change replaces, and their replacements."""
        source = self.path.read_text()
        lines = list(difflib.ndiff(source.splitlines(), self.apply(source).splitlines()))
        old, new = (
            " ".join(line[2:].strip() for line in lines if line.startswith(sign))
            for sign in ("- ", "+ ")
        )
        return old, new


def named(label: str) -> DrawnMutant:
    """Return the mutant with a label, such as ``dataplane.tcp/17``."""
    module, _, number = label.partition("/")
    return DrawnMutant(f"{PRODUCT}.{module}", int(number))


def draw(lines: Mapping[str, Sequence[int]], seed: int, count: int) -> list[DrawnMutant]:
    """Draw at most ``count`` mutants in lines that run, taking the kinds in turn.

    Args:
        lines: The lines of each module that run.
    """
    by_kind: dict[str, list[DrawnMutant]] = {}
    for name in sorted(lines):
        path = ROOT / f"{name.replace('.', '/')}.py"
        if not path.exists():
            continue
        runs = set(lines[name])
        for number, change in enumerate(changes(path.read_text())):
            if change.line in runs:
                by_kind.setdefault(change.kind, []).append(DrawnMutant(name, number))
    rng = Random(seed)
    for kind in sorted(by_kind):
        rng.shuffle(by_kind[kind])
    drawn: list[DrawnMutant] = []
    while any(by_kind.values()) and len(drawn) < count:
        drawn += [by_kind[kind].pop() for kind in sorted(by_kind) if by_kind[kind]]
    return drawn[:count]


def changed(source: str, change: Change) -> str:
    text = source.encode()
    for start, end, new in sorted(change.edits, reverse=True):
        text = text[:start] + new.encode() + text[end:]
    return text.decode()


def changes(source: str) -> list[Change]:
    """Return all possible changes of a module, in the order of its lines."""
    found = list(_Changes(source).all())
    return sorted(found, key=lambda change: (change.line, change.edits, change.kind))


class _Changes:
    """Yields the changes of one module."""

    def __init__(self, source: str) -> None:
        self._text = source.encode()
        self._starts = [0]
        for line in self._text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._tree = ast.parse(source)

    def all(self) -> Iterator[Change]:
        for function in ast.walk(self._tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for statement in function.body:
                for node in _within(statement):
                    yield from self._of(node)

    def _of(self, node: ast.AST) -> Iterator[Change]:
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            yield from self._negated(node.test)
        elif isinstance(node, ast.comprehension):
            for condition in node.ifs:
                yield from self._negated(condition)
        elif isinstance(node, ast.Compare):
            yield from self._compared(node)
        elif isinstance(node, ast.BoolOp):
            yield from self._joined(node)
        elif isinstance(node, ast.BinOp | ast.Constant | ast.AugAssign):
            yield from self._counted(node)
        elif isinstance(node, ast.Call):
            yield from self._called(node)
        elif isinstance(node, ast.Attribute | ast.Name):
            yield from self._named(node)
        if isinstance(node, ast.stmt):
            yield from self._left_out(node)

    def _negated(self, test: ast.expr) -> Iterator[Change]:
        start, end = self._span(test)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yield Change("condition", test.lineno, ((start, start + len("not"), ""),))
        elif not (isinstance(test, ast.Compare) and len(test.ops) == 1 and _is_equality(test)):
            edits = ((start, start, "not ("), (end, end, ")"))
            yield Change("condition", test.lineno, edits)

    def _compared(self, node: ast.Compare) -> Iterator[Change]:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            old, new, kind = _COMPARED[type(operator)]
            place = self._between(left, right, old)
            if place is not None:
                yield Change(kind, node.lineno, ((*place, new),))
            left = right

    def _joined(self, node: ast.BoolOp) -> Iterator[Change]:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        pairs = zip(node.values, node.values[1:], strict=False)
        places = [self._between(left, right, rf"\b{old}\b") for left, right in pairs]
        if None not in places:
            edits = tuple((*place, new) for place in places if place)
            yield Change("and/or", node.lineno, edits)

    def _counted(self, node: ast.BinOp | ast.Constant | ast.AugAssign) -> Iterator[Change]:
        if isinstance(node, ast.Constant):
            start, end = self._span(node)
            if isinstance(node.value, bool):
                yield Change("flag", node.lineno, ((start, end, str(not node.value)),))
            elif isinstance(node.value, int) and node.value < 1000:
                yield Change("off by one", node.lineno, ((start, end, str(node.value + 1)),))
            return
        signs = {ast.Add: ("+", "-"), ast.Sub: ("-", "+")}.get(type(node.op))
        if signs is None:
            return
        if isinstance(node, ast.AugAssign):
            place = self._between(node.target, node.value, re.escape(f"{signs[0]}="))
            if place is not None:
                yield Change("counter", node.lineno, ((*place, f"{signs[1]}="),))
            return
        place = self._between(node.left, node.right, re.escape(signs[0]))
        if place is not None and not isinstance(node.left, ast.Constant | ast.JoinedStr):
            yield Change("sign", node.lineno, ((*place, signs[1]),))

    def _called(self, node: ast.Call) -> Iterator[Change]:
        if len(node.args) > 1:
            one, other = node.args[0], node.args[1]
            if all(isinstance(each, ast.Name | ast.Attribute) for each in (one, other)):
                first, second = self._span(one), self._span(other)
                edits = ((*first, self._at(second)), (*second, self._at(first)))
                yield Change("wrong object", node.lineno, edits)
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in ("pop", "popleft"):
            end = self._span(function)[1]
            if function.attr == "pop" and node.args:
                # Keys stay in the dictionary; without a default, a missing key still raises an
                # error.
                new = "get" if len(node.args) == 2 else "__getitem__"
                yield Change("leak", node.lineno, ((end - len("pop"), end, new),))

    def _named(self, node: ast.Attribute | ast.Name) -> Iterator[Change]:
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        other = _OTHER_NAME.get(name)
        if other is not None and re.search(rf"\b{other}\b".encode(), self._text):
            end = self._span(node)[1]
            edits = ((end - len(name), end, other),)
            yield Change("wrong object", node.lineno, edits)

    def _left_out(self, node: ast.stmt) -> Iterator[Change]:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
        is_kept = isinstance(node, ast.Assign | ast.AnnAssign) and any(
            isinstance(target, ast.Attribute | ast.Subscript)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        is_early = isinstance(node, ast.Return) and node.value is None
        is_other = isinstance(node, ast.AugAssign | ast.Delete | ast.Continue | ast.Break)
        if not (is_call or is_kept or is_early or is_other):
            return
        start, end = self._span(node)
        text = self._at((start, end))
        words = (kind for kind, pattern in _MISSING if re.search(pattern, text))
        yield Change(next(words, "missing step"), node.lineno, ((start, end, "pass"),))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or 0, node.end_col_offset or 0
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[end_line - 1] + end_column,
        )

    def _at(self, span: tuple[int, int]) -> str:
        return self._text[span[0] : span[1]].decode()

    def _between(self, left: ast.expr, right: ast.expr, pattern: str) -> tuple[int, int] | None:
        start, end = self._span(left)[1], self._span(right)[0]
        found = re.search(pattern.encode(), self._text[start:end])
        return None if found is None else (start + found.start(), start + found.end())


def _within(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and its descendants that run with it, except functions, messages and types."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assert):
        return
    if isinstance(node, ast.Raise | ast.JoinedStr) or _is_for_people(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _within(child)


def _is_for_people(node: ast.AST) -> bool:
    """Return whether a node is a call of the log, on which no guarantee depends."""
    if isinstance(node, ast.Expr):
        node = node.value
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    owner = node.func.value
    return isinstance(owner, ast.Name) and owner.id.lower() in ("log", "logger", "_log", "_logger")


def _is_equality(test: ast.Compare) -> bool:
    """Return whether a mutant replaces the comparison's first operator with its opposite."""
    return _COMPARED[type(test.ops[0])][2] == "condition"
