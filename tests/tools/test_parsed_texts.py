"""The checks for texts that are parsed, on small modules."""

from __future__ import annotations

import ast

import pytest

from .parsed_texts import READING, find_parsed_texts, find_parsed_words, find_split_identities


def found(module: str) -> list[str]:
    """Return what is found in a module with this text."""
    files = {"userspace_proxy/part/a.py": list(ast.walk(ast.parse(module)))}
    problems = {
        *find_parsed_texts(files),
        *find_parsed_words(files, READING),
        *find_split_identities(files),
    }
    return [problem.what for problem in sorted(problems)]


@pytest.mark.parametrize(
    "body",
    [
        'return one.hint.split(";")',
        'return note.startswith("annotation ")',
        'return "mean" in note',
        'return one.object.partition(" ")',
        'target = one.target if one else ""\n    return ":" in target',
        'return [line for line in one.problems if not line.endswith(".")]',
        "return one.cause in WORDS",
        'return one.cause == "complete"',
    ],
)
def test_a_text_for_people_is_not_parsed(body: str) -> None:
    module = f'WORDS = frozenset(("idle", "left"))\n\n\ndef f(one, note):\n    {body}\n'
    assert any("is written for people" in what for what in found(module))


@pytest.mark.parametrize(
    "body",
    [
        'return one.name.split("/")',
        "return one.cause.replace(count=2)",
        "return note in one.notes",
        "return one.cause == CauseCode.NO_SLICE",
        'return exc.object.count(b"x")',
    ],
)
def test_values_and_names_may_be_examined(body: str) -> None:
    assert found(f"def f(one, note):\n    {body}\n") == []


WRITER = """\
def listed(names):
    return " and ".join(names)


def f(one, names, number):
    said = listed(names)
    {body}
"""


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('return said.startswith("that")', "it was just written"),
        ('return PATTERN.sub("", " ".join(map(str, names)))', "it was just written"),
        ("return PATTERN.fullmatch(listed(names))", "it was just written"),
        ('return f"run {one} --help".replace("x", "")', "it was just written"),
        ('return "x" in said', "it was just written"),
        ('return one.replace("other ", "")', "'other ' is looked for"),
        ('return one.endswith(f"(pid {number})")', "'(pid ' is looked for"),
        ('return one.startswith(("a ", "b"))', "'a ' is looked for"),
        ('return " ip6 " in one', "' ip6 ' is looked for"),
        ('return one == "add rule"', "it is compared with 'add rule'"),
    ],
)
def test_what_was_written_is_not_read(body: str, what: str) -> None:
    assert found(WRITER.format(body=body)) == [f"text is parsed: {what}"]


@pytest.mark.parametrize(
    "body",
    [
        'return " ".join(one.split())',
        'return " ".join(f"{one}: {number}".split())',
        'return one.partition(" ")[0]',
        'return one.replace(" ", "-")',
        "return one in listed",
    ],
)
def test_blanks_may_be_read(body: str) -> None:
    assert found(WRITER.format(body=body)) == []


@pytest.mark.parametrize(
    "body",
    [
        'return one.service.partition(" ")[0].partition("/")',
        'return name.partition(" ")[0]',
        'return port.partition(" ")[0].partition(":")[0]',
        'return one.group.label.partition(" ")[0]',
        'return one.table.partition(" ")[0] in FAMILIES',
        'family, _, table = chain.table.partition(" ")',
        'family, _, name = table.partition(" ")',
        'return table.removeprefix("legacy ")',
        'return one.table.startswith("legacy ")',
        'return one.service.split("/", 1)',
    ],
)
def test_the_text_of_an_identity_is_not_split(body: str) -> None:
    assert any("is an identity" in what for what in found(f"def f(one):\n    {body}\n"))


@pytest.mark.parametrize(
    "body",
    [
        'return service.partition(":")[0]',
        'return name.partition("=")',
        'return line.partition(" ")',
        'return one.label.endswith("-")',
        'return one.label.replace("~", "/")',
        "return table.partition",
    ],
)
def test_what_a_user_typed_and_lines_may_be_split(body: str) -> None:
    assert found(f"def f(one):\n    {body}\n") == []
