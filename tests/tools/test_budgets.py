"""Lines of areas, and their budgets."""

from tests.tools.budgets import count_lines, find_problems, read_areas, report
from tests.tools.form import ROOT

PAGE = """
| area | what | budget |
|---|---|---|
| the node's package | `package` | 1,000 |
| terminals | `package/nodes` `package/cli/top.py` | 100 |
"""
TEXTS = {
    "package/a.py": "x\n" * 1030,
    "package/nodes/b.py": "x\n" * 100,
    "package/cli/top.py": "x\n" * 4,
}


def test_a_module_counts_in_the_area_of_its_longest_folder() -> None:
    areas = read_areas(PAGE)
    lines = count_lines(areas, TEXTS)
    assert lines == {"the node's package": 1030, "terminals": 104}
    assert list(report(areas, lines))[1:] == [
        "    1,030 of   1,000  the node's package",
        "      104 of     100  terminals",
    ]


def test_more_than_three_percent_above_a_budget_and_a_module_without_one_are_problems() -> None:
    areas = read_areas(PAGE)
    first, second = find_problems(areas, count_lines(areas, {**TEXTS, "other/c.py": "x\n"}))
    assert "terminals has 104 lines, and a budget of 100" in first
    assert "1 lines are in no area" in second


def test_this_project_has_six_areas() -> None:
    assert len(read_areas((ROOT / "CONTRIBUTING.md").read_text())) == 6
