"""A bug costs only the Service that meets it its endpoints by name."""

import pytest

from userspace_proxy.cluster import from_names
from userspace_proxy.cluster.forbidden import ForbiddenAddresses
from userspace_proxy.cluster.from_names import EndpointsByName
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    ServiceKey,
    SliceKey,
)
from userspace_proxy.model.endpoint_names import Lookup, NameState
from userspace_proxy.model.notes import NoteKind

from .named import DB, NETWORKS, V4, Proxy

BAD = ServiceKey("shop", "bad")


class Unanswerable(set):
    """This node's addresses, where a question about one of them raises."""

    def __contains__(self, ip):
        if super().__contains__(ip):
            raise ZeroDivisionError("a bug")
        return False


@pytest.fixture
def proxy():
    made = Proxy()
    made.own = Unanswerable({"203.0.113.66"})
    made.endpoints = EndpointsByName(
        ("example.com",), ForbiddenAddresses(NETWORKS, made.own.__contains__)
    )
    made.put()
    made.put("bad", "bad.example.com")
    made.put("other", "other.example.com")
    made.derive()
    return made


def test_only_this_service_has_no_endpoints_by_name(proxy):
    item = EndpointSlice(SliceKey("shop", "a"), BAD, V4, (), (Endpoint("192.0.2.1"),))
    proxy.store.put_slice(item)
    for _ in range(3):
        host, _ = proxy.endpoints.hosts.take(0.0)
        ip = "203.0.113.66" if host == "bad.example.com" else "203.0.113.1"
        proxy.endpoints.learn(host, Lookup({V4: (ip,)}, 30), 0.0, 0.0)
    proxy.derive()
    assert proxy.ips("db") == proxy.ips("other") == ["203.0.113.1"]
    assert proxy.ips("bad") == ["192.0.2.1"]
    ((key, bug),) = proxy.endpoints.bugs.items()
    assert key == BAD
    assert bug.startswith(f"ZeroDivisionError('a bug') at {__name__}:")
    note = NoteKind.NAMES_BUG(bug)
    before = proxy.state("bad")
    assert before.service.notes == (note,)
    proxy.endpoints.look_again()
    proxy.derive()
    assert proxy.state("bad") is before


def test_the_next_answer_is_tried_again(proxy):
    hosts = {proxy.endpoints.hosts.take(0.0)[0] for _ in range(3)}
    for ip in ("203.0.113.66", "203.0.113.2"):
        for host in hosts:
            proxy.endpoints.learn(host, Lookup({V4: (ip,)}, 30), 0.0, 0.0)
        proxy.derive(proxy.source)
    assert proxy.ips("bad") == ["203.0.113.2"]
    assert proxy.endpoints.bugs == {}
    assert proxy.state("bad").service.notes == ()


@pytest.mark.parametrize("step", ["read_request", "is_below", "derived_key"])
def test_in_each_step_others_go_on(monkeypatch, step):
    real = getattr(from_names, step)

    def raise_for_bad(*args):
        if "bad" in repr(args):
            raise ZeroDivisionError("a bug")
        return real(*args)

    proxy = Proxy()
    proxy.put("bad", "bad.example.com")
    monkeypatch.setattr(from_names, step, raise_for_bad)
    proxy.derive()
    assert proxy.state("bad").slices == ()
    assert [*proxy.endpoints.bugs] == [BAD]
    proxy.put("db", DB)
    proxy.derive()
    proxy.endpoints.learn(DB, Lookup({V4: ("203.0.113.1",)}, 30), 0.0, 0.0)
    proxy.derive(proxy.source)
    assert proxy.ips("db") == ["203.0.113.1"]
    assert proxy.state("bad").slices == ()
    assert [*proxy.endpoints.bugs] == [BAD]
    proxy.store.delete_service(BAD)
    proxy.derive()
    assert proxy.endpoints.bugs == {}


def test_a_service_that_changes_is_tried_again(monkeypatch, proxy):
    with monkeypatch.context() as patch:
        patch.setattr(from_names, "read_request", lambda _: 1 // 0)
        proxy.put("late")
        proxy.derive()
        assert proxy.state("late").slices == ()
    proxy.put("late", "203.example.com")
    proxy.derive()
    assert proxy.problems("late") == [(NameState.PENDING, "")]
    assert proxy.endpoints.bugs == {}
