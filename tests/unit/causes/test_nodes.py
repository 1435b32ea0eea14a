import pytest

from userspace_proxy.causes import nodes
from userspace_proxy.causes.nodes import listed

from . import words

ABCDE = ("a", "b", "c", "d", "e")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a and b"),
        (("a", "b", "c"), "a, b and c"),
        (ABCDE, "a, b and 3 others"),
        (tuple(map(str, range(2_000))), "0, 1 and 1,998 others"),
    ],
)
def test_up_to_three_names_are_listed_and_longer_lists_end_with_a_count_after_two(names, words):
    assert listed(names) == words


def test_omitted_names_are_counted():
    assert listed(("a", "b"), 2, 3) == "a, b and 1 other"
    assert listed(("a",), 2, 5) == "a and 4 others"
    assert listed(ABCDE[:3], 3, 14) == "a, b, c and 11 others"


def test_the_recorded_page_contains_all_texts_about_nodes():
    assert words.changed(nodes) == []
