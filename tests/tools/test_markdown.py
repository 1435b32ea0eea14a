import pytest

from .markdown import BEGIN, END, RIGHT, marked, replace_part, table, without_marked


def test_all_columns_but_the_first_are_aligned_alike() -> None:
    rows = [("one", "1", "a|b"), ("two", "2", "")]
    assert table(("what", "count", ""), rows, others=RIGHT).splitlines() == [
        "| what | count |  |",
        "|---|---:|---:|",
        "| one | 1 | a\\|b |",
        "| two | 2 |  |",
    ]


def test_the_text_around_the_part_stays() -> None:
    page = f"before\n{BEGIN}\nold\n{END}after\n"
    assert replace_part(page, "new") == f"before\n{BEGIN}\nnew\n\n{END}after\n"


def test_what_is_between_markers_is_not_written_by_hand() -> None:
    page = f"one\n{marked('two', 'bench')}\nthree\n{BEGIN}\nfour\n{END}five\n"
    assert without_marked(page).split() == ["one", "three", "five"]


def test_a_page_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no markers"):
        replace_part("text", "new")
