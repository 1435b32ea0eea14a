import pytest

from userspace_proxy.status.selection import Selection, select

from .views import (
    make_ignored,
    make_port,
    make_view,
)

CART = make_port("cart", endpoints=(), reason="it has no endpoints")
WEB = make_port("web")
DNS = make_port("kube-dns", namespace="kube-system", port="dns")
DB = make_ignored("shop/db", "", "it is headless")
MEDIA = make_ignored("voice/media", "rtp", "protocol SCTP is not supported")
VIEW = make_view(WEB, CART, DNS, ignored=(MEDIA, DB))


def names(**selection):
    return [str(port.plan.key.name) for port in select(VIEW, Selection(**selection)).ports]


def test_everything_is_shown_by_namespace_and_name():
    assert names() == ["kube-system/kube-dns:dns", "shop/cart:http", "shop/web:http"]


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        pytest.param("CART", ["shop/cart:http"], id="any-case"),
        pytest.param("shop/web:http", ["shop/web:http"], id="whole-name"),
        pytest.param("http web", ["shop/web:http"], id="all-words"),
        pytest.param(str(WEB.plan.endpoints[1].address), ["shop/web:http"], id="endpoint"),
        pytest.param(str(CART.plan.frontends[0].address), ["shop/cart:http"], id="frontend"),
        pytest.param("nowhere", [], id="none"),
    ],
)
def test_the_filter_matches_names_and_addresses(q, expected):
    assert names(q=q) == expected


def test_only_service_ports_with_problems():
    assert names(show="trouble") == ["shop/cart:http"]


def test_the_filter_applies_to_ignored_services():
    assert select(VIEW, Selection()).ignored == (DB, MEDIA)
    assert select(VIEW, Selection(q="media:rtp")).ignored == (MEDIA,)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({}, Selection(), id="nothing"),
        pytest.param(
            {"q": " web ", "show": "trouble", "page": "3", "refresh": "off"},
            Selection("web", "trouble", 3, refresh=False),
            id="all-of-it",
        ),
        pytest.param({"page": "-1", "show": "x", "refresh": "x"}, Selection(), id="nonsense"),
        pytest.param({"page": "٣"}, Selection(), id="other-digits"),
        pytest.param({"page": "9" * 5000}, Selection(), id="huge-page"),
        pytest.param({"page": "0"}, Selection(), id="page-zero"),
        pytest.param({"q": "a" * 5000}, Selection("a" * 200), id="huge-filter"),
    ],
)
def test_invalid_queries_are_tolerated(query, expected):
    assert Selection.parse(query) == expected


def test_links_keep_the_other_parts_of_the_selection():
    selection = Selection("a&b", "trouble", 3, refresh=False)
    assert selection.link() == "./?q=a%26b&show=trouble&page=3&refresh=off"
    assert selection.link(page=4) == "./?q=a%26b&show=trouble&page=4&refresh=off"
    assert Selection().link() == "./"
    assert Selection().link(q="\ud800") == "./?q=%3F"
