import pytest

from userspace_proxy.nodes.dashboard.links import (
    incident_link,
    node_link,
    service_link,
    with_query,
)


def test_pages_have_addresses_by_name():
    assert service_link("shop/web") == "/services/shop/web"
    assert node_link("node-1") == "/nodes/node-1"
    assert incident_link("0123") == "/incidents/0123"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param("a/b", "/nodes/a%2Fb", id="slash"),
        pytest.param("..", "/nodes/%2E%2E", id="folder-above"),
        pytest.param('"><b>?#', "/nodes/%22%3E%3Cb%3E%3F%23", id="markup"),
        pytest.param("\ud800", "/nodes/%3F", id="surrogate"),
    ],
)
def test_names_that_agents_claim_are_quoted(name, path):
    assert node_link(name) == path


def test_a_query_has_what_is_not_empty():
    assert with_query("/map", {"q": "", "page": 0}) == "/map"
    assert with_query("/map", {"q": "shop/web a&b", "page": 2}) == "/map?q=shop/web+a%26b&page=2"
