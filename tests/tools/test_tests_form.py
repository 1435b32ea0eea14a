"""What is found in tests: those that don't run, and sentences."""

from __future__ import annotations

import ast

import pytest

from .tests_form import find_endless, find_late, find_nested, find_sentences, has_sentence, words_of

GOLDEN = words_of("  10.0.0.1:80 waits for a bus: its line ends at\n  80 metres")


def nodes_of(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


@pytest.mark.parametrize(
    ("inner", "is_found"),
    [
        ("@given(st.data())\n    def check(data): ...", True),
        ("@given(st.data())\n    def check(data): ...\n    check()", False),
        ("def test_it(): ...", True),
        ("def helper(): ...", False),
    ],
)
def test_a_test_inside_of_another_function_is_found(inner: str, is_found: bool) -> None:
    nodes = nodes_of(f"def test_other():\n    assert True\n\n    {inner}\n")
    assert bool(list(find_nested("a.py", nodes))) is is_found


def test_an_end_of_a_fixture_without_a_time_limit_is_found() -> None:
    after = "\n    ".join(["process.wait()", "process.wait(30)", "await event.wait()"])
    nodes = nodes_of(f"async def one():\n    thread.join()\n    yield\n    {after}\n")
    assert [line.split(":")[1] for line in find_endless("tests/test_a.py", nodes)] == ["4"]


def test_what_follows_the_block_that_runs_a_module_is_found() -> None:
    nodes = nodes_of("if __name__ == '__main__':\n    main()\ndef late(): ...")
    assert len(list(find_late("a.py", nodes))) == 1


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ('said == "10.9.9.9:1 waits for a bus: its line ends"', True),
        ('f"{pod} waits for a bus: its line is new"', True),
        ('said == "waits for a bus"', False),
        ('def f():\n    """It waits for a bus: its line ends at 80."""', False),
    ],
)
def test_words_of_the_golden_pages_are_found_with_any_parameters(text: str, is_found: bool) -> None:
    assert has_sentence(nodes_of(text), GOLDEN) is is_found


def test_only_tests_of_what_users_read_have_sentences() -> None:
    (found,) = find_sentences(["tests/unit/a/test_new.py", "tests/node/test_whole.py"])
    assert found.startswith("tests/unit/a/test_new.py: ")
