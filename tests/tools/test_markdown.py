import pytest

from .markdown import RIGHT, marked, replace_part, table, without_marked


def test_all_columns_but_the_first_are_aligned_alike() -> None:
    rows = [("one", "1", "a|b"), ("two", "2", "")]
    assert table(("what", "count", ""), rows, others=RIGHT).splitlines() == [
        "| what | count |  |",
        "|---|---:|---:|",
        "| one | 1 | a\\|b |",
        "| two | 2 |  |",
    ]


def test_the_text_around_the_part_stays_and_the_part_of_another_target() -> None:
    page = f"before\n{marked('old', 'docs')}\n{marked('old', 'bench')}\nafter\n"
    assert replace_part(page, "new") == page.replace("old", "new", 1)
    assert replace_part(page, "new", "bench") == "new\n".join(page.rsplit("old\n", 1))


def test_what_is_between_markers_is_not_written_by_hand() -> None:
    page = f"one\n{marked('two', 'bench')}\nthree\n{marked('four', 'docs')}\nfive\n"
    assert without_marked(page).split() == ["one", "three", "five"]


def test_a_page_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no markers"):
        replace_part("text", "new")
