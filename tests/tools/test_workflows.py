"""The project's workflows violate no rule."""

from __future__ import annotations

from .workflows import ROOT, problems_of_project


def test_the_workflows_satisfy_all_lint_rules() -> None:
    assert list(problems_of_project(ROOT)) == []
