import pytest

from userspace_proxy.nodes.dashboard.paging import part_of


@pytest.mark.parametrize(
    ("page", "items", "first", "last"),
    [
        pytest.param(1, [0, 1], 1, 2, id="first"),
        pytest.param(3, [4], 5, 5, id="last"),
        pytest.param(9, [4], 5, 5, id="past-the-end"),
    ],
)
def test_a_list_has_pages(page, items, first, last):
    part = part_of(range(5), page, 2)
    assert list(part.items) == items
    assert (part.first, part.last, part.pages, part.total) == (first, last, 3, 5)


def test_an_empty_list_has_one_page():
    part = part_of((), 4, 2)
    assert (part.page, part.pages, part.first, part.last) == (1, 1, 0, 0)
