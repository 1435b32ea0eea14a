"""The project's workflows break no rule, and each rule finds what breaks it."""

from __future__ import annotations

import pytest

from .workflows import ROOT, problems, problems_of_project, pythons

TARGETS = {"test", "help"}
TESTED = ["3.11", "3.14"]
PINNED = f"actions/checkout@{'0123abcd' * 5} # v7.0.1"
GOOD = f"""\
on: [push]
permissions:
  contents: read
concurrency:
  group: ci-${{{{ github.ref }}}}
jobs:
  test:
    runs-on: ubuntu-24.04
    container: python:${{{{ matrix.python }}}}-bookworm
    strategy:
      matrix:
        python: ["3.11", "3.14"]
        target: [test, help]
    timeout-minutes: 10
    steps:
      - uses: {PINNED}
      - run: make ${{{{ matrix.target }}}}
        if: always()
        env:
          INDEX: ${{{{ vars.PYTHON_INDEX }}}}
  again:
    uses: ./.github/workflows/other.yml
"""
HASH = "0123abcd" * 5


def found(text: str, name: str = "ci") -> list[str]:
    return list(problems(name, text, TARGETS, TESTED))


def test_the_projects_workflows_break_no_rule() -> None:
    assert list(problems_of_project(ROOT)) == []


def test_a_workflow_that_follows_the_rules_is_no_problem() -> None:
    assert found(GOOD) == []


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        pytest.param("make ${{ matrix.target }}", "pip install .", "`pip install .`", id="shell"),
        pytest.param("[test, help]", "[test, gone]", "`make gone`", id="no-target"),
        pytest.param(
            "make ${{ matrix.target }}",
            "|\n          make test\n          rm x",
            "`make",
            id="lines",
        ),
        pytest.param("if: always()", "if: github.actor == 'me'", "decides by `if`", id="if"),
        pytest.param(
            "${{ vars.PYTHON_INDEX }}", "https://ghcr.io/x", "the host ghcr.io", id="host"
        ),
        pytest.param(f"@{HASH} # v7.0.1", "@v7", "isn't pinned", id="tag"),
        pytest.param("contents: read", "contents: write", "permissions", id="may-write"),
        pytest.param("    timeout-minutes: 10\n", "", "no timeout-minutes", id="no-deadline"),
        pytest.param("group: ci", "group: ${{ github.workflow }}", "no group", id="group"),
        pytest.param("${{ matrix.python }}", "3.10", "Python 3.10 isn't", id="other-python"),
    ],
)
def test_what_breaks_a_rule_is_a_problem(right: str, wrong: str, problem: str) -> None:
    assert right in GOOD
    (line,) = found(GOOD.replace(right, wrong))
    assert line.startswith("ci")
    assert problem in line


def test_classifiers_name_the_pythons() -> None:
    lines = ["Python :: 3", "Python :: 3.11", "Python :: 3.14", "C"]
    classifiers = [f"Programming Language :: {line}" for line in lines]
    assert pythons(f"[project]\nclassifiers = {classifiers}\n") == TESTED
