import json

from userspace_proxy.status.answers import make_answer
from userspace_proxy.status.selection import Selection
from userspace_proxy.status.watch import Changes

from .views import NOW, make_port, make_view, replace


class Client:
    """Gets a line for each view."""

    def __init__(self):
        self._changes, self._now = Changes(), NOW

    def see(self, *ports, service="", **view):
        self._now += 1
        view = make_view(*ports, **view)
        part = view.only(service) if service else view
        answer = make_answer(part, now=self._now, selection=Selection())
        line = self._changes.line(answer)
        assert line.endswith(b"\n")
        return json.loads(line) if line.strip() else None


WEB, CART = make_port("web"), make_port("cart")


def test_the_first_line_is_the_whole_answer():
    first = Client().see(WEB, CART)
    assert (first["node"], first["now"]) == ("node-a", NOW + 1)
    assert {port["service"] for port in first["ports"]} == {"web", "cart"}
    assert "gone" not in first


def test_a_line_is_empty_if_nothing_but_the_time_has_changed():
    client = Client()
    client.see(WEB, CART)
    assert client.see(WEB, CART) is None
    assert client.see(replace(WEB), CART) is None


def test_later_lines_contain_only_what_changed():
    client = Client()
    client.see(WEB, CART)
    line = client.see(replace(WEB, refused=3), CART, revision=4712)
    assert line.keys() == {"now", "revision", "ports"}
    assert [(port["service"], port["refused"]) for port in line["ports"]] == [("web", 3)]
    assert client.see(replace(WEB, refused=3), CART, revision=4712) is None


def test_a_service_port_that_is_gone_is_named_once():
    client = Client()
    client.see(WEB, CART)
    line = client.see(CART, revision=4711)
    web = {"namespace": "shop", "service": "web", "port": "http", "family": "IPv4", "side": ""}
    assert line["gone"] == [web]
    assert client.see(CART) is None
    assert [port["service"] for port in client.see(WEB, CART)["ports"]] == ["web"]


def test_one_service_can_be_watched():
    client = Client()
    first = client.see(WEB, CART, service="shop/cart")
    assert [port["service"] for port in first["ports"]] == ["cart"]
    assert client.see(replace(WEB, refused=1), CART, service="shop/cart") is None
