import pytest

from userspace_proxy.status.selection import Selection, part_of, with_query
from userspace_proxy_kubectl.nodes.dashboard.look import (
    has_words,
    node_link,
)


def test_a_selections_link_has_all_parameters_except_default_values():
    asked = Selection.parse({"q": " node-7 ", "page": "2", "refresh": "off"}, "/nodes")
    assert asked.link() == "/nodes?q=node-7&page=2&refresh=off"
    assert asked.link(q="", page=1, refresh=True) == "/nodes"


@pytest.mark.parametrize(
    ("page", "items", "first", "last"),
    [
        pytest.param(1, [0, 1], 1, 2, id="first"),
        pytest.param(3, [4], 5, 5, id="last"),
        pytest.param(9, [4], 5, 5, id="past-the-end"),
    ],
)
def test_a_list_is_divided_into_pages(page, items, first, last):
    part = part_of(range(5), page, 2)
    assert list(part.items) == items
    assert (part.first, part.last, part.pages, part.total) == (first, last, 3, 5)


def test_an_empty_list_has_one_page():
    part = part_of((), 4, 2)
    assert (part.page, part.pages, part.first, part.last) == (1, 1, 0, 0)


def test_a_search_matches_only_if_all_its_words_match():
    assert has_words("NODE 1.2", ["node-1", "1.2.3"])
    assert not has_words("node 1.4", ["node-1", "1.2.3"])
    assert has_words("", [])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("a/b", "/nodes/a%2Fb", id="slash"),
        pytest.param("..", "/nodes/%2E%2E", id="folder-above"),
        pytest.param('"><b>?#', "/nodes/%22%3E%3Cb%3E%3F%23", id="markup"),
        pytest.param("\ud800", "/nodes/%3F", id="surrogate"),
    ],
)
def test_agent_provided_names_are_quoted_in_links(name, path):
    assert node_link(name) == path


def test_the_query_of_a_url_omits_empty_values():
    assert with_query("/map", {"q": "", "page": 0}) == "/map"
    assert with_query("/map", {"q": "shop/web a&b", "page": 2}) == "/map?q=shop/web+a%26b&page=2"
