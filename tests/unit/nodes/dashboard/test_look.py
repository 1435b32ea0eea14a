import pytest

from userspace_proxy.nodes.dashboard.look import Q_MAX, PageRequest


def test_an_address_is_read_and_written_the_same():
    asked = PageRequest.read("/nodes", {"q": " node-7 ", "page": "2", "refresh": "off"})
    assert asked == PageRequest("/nodes", "node-7", 2, False)
    assert asked.link() == "/nodes?q=node-7&page=2&refresh=off"
    assert asked.link(q="", page=1, refresh=True) == "/nodes"


@pytest.mark.parametrize("page", ["", "0", "-1", "x", "٣", "9" * 40])
def test_invalid_pages_are_the_first(page):
    assert PageRequest.read("/", {"page": page}).page == 1


def test_a_long_search_is_cut():
    assert len(PageRequest.read("/", {"q": "x" * 10_000}).q) == Q_MAX
