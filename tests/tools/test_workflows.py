"""The project's workflows break no rule."""

from __future__ import annotations

from .workflows import ROOT, problems_of_project


def test_the_projects_workflows_break_no_rule() -> None:
    assert list(problems_of_project(ROOT)) == []
