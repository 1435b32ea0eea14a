"""Tests of completing the word at a shell's cursor."""

import asyncio

import pytest

from tests.unit.port_numbers import free_port
from tests.unit.sources.kubernetes.objects import service
from tests.unit.status.views import make_ignored, make_port, make_view
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.cli import main
from userspace_proxy.status.search import QUALIFIERS
from userspace_proxy_testing.fakes.api_server import FakeApiServer

PORTS = (make_port("web"), make_port("web", port="https"), make_port("db", namespace="default"))
VIEW = make_view(*PORTS, ignored=(make_ignored("cart/dns", "", "held"),))


@pytest.fixture
def offered(capsys):
    def offer(kind, *words):
        assert main(["complete", kind, "--", *words]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out.split()

    return offer


@pytest.mark.parametrize(
    ("kind", "words", "expected"),
    [
        ("services", ["explain", ""], ["cart/dns", "db", "default/db", "shop/web"]),
        (
            "names",
            ["status", ""],
            ["cart", "cart/dns", "db", "default", "default/db", "shop", "shop/web"],
        ),
        ("services", ["top", "-n", "shop", ""], ["shop/web", "web"]),
        ("services", ["top", "-A", ""], ["cart/dns", "default/db", "shop/web"]),
        ("services", ["top", "-n=shop", "svc/w"], ["shop/web", "svc/web"]),
        ("services", ["top", "-n=shop", "shop/w"], ["shop/web", "web"]),
        ("services", ["top", "-n", "none", ""], []),
        ("namespaces", ["observe", "-n", ""], ["cart", "default", "shop"]),
        ("names", ["nope", ""], []),
        ("names", ["status", "--nope", ""], []),
        ("names", ["status", "a", ""], []),
        ("names", [], []),
    ],
)
def test_names_are_completed_from_the_proxys_services(kind, words, expected, serve_view, offered):
    server = serve_view(VIEW)
    typed = [*words[:1], server, *words[1:]] if words else []
    assert offered(kind, *typed) == expected


def test_names_that_a_shell_would_expand_are_not_completed(serve_view, offered):
    server = serve_view(make_view(make_port("$(reboot)"), make_port("web")))
    assert offered("services", "explain", server, "") == ["shop/web"]


def test_search_completion_offers_states_causes_and_names(serve_view, offered):
    words = offered("search", "top", serve_view(VIEW), "--search=")
    assert {word.partition(":")[0] for word in words} == QUALIFIERS.keys()
    assert [word for word in words if word.endswith(":")] == ["endpoint:", "ip:", "name:", "node:"]
    assert {f"cause:{code}" for code in CauseCode} < set(words)
    assert {"is:refused", "is:problem", "ns:shop", "service:shop/web"} < set(words)


def test_without_a_proxy_only_states_and_causes_are_offered(offered):
    server = f"--server=:{free_port()}"
    assert offered("names", "status", server, "") == []
    words = offered("search", "status", server, "-q", "")
    assert "is:refused" in words
    assert "ns:shop" not in words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["forward", ""], ["default/web", "web"]),
        (["forward", "-n=shop", ""], []),
        (["explain", ""], ["default/web", "web"]),
    ],
)
async def test_names_are_completed_from_the_cluster_for_cluster_commands(words, expected, capsys):
    async with FakeApiServer() as api:
        api.put(service())
        typed = [words[0], f"--master={api.url}", *words[1:]]
        assert await asyncio.to_thread(main, ["complete", "services", "--", *typed]) == 0
    assert capsys.readouterr().out.split() == expected
