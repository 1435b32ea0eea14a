"""The objects behind the fake API server."""

from __future__ import annotations

import pytest

from userspace_proxy_testing.fakes.api_objects import Expired, FakeObjects, ObjectFilter

SERVICES = ObjectFilter("services")


@pytest.fixture
def objects():
    return FakeObjects()


def service(name: str) -> dict[str, object]:
    return {"kind": "Service", "metadata": {"name": name}}


def names(items) -> list[str]:
    return [item["metadata"]["name"] for item in items]


def test_each_change_has_its_own_version(objects):
    events = [
        objects.put(service("web")),
        objects.put(service("web")),
        objects.delete("Service", "web", "default"),
    ]
    assert [(e.revision, e.type) for e in events] == [
        (1001, "ADDED"),
        (1002, "MODIFIED"),
        (1003, "DELETED"),
    ]
    assert events[2].line == (
        b'{"type": "DELETED", "object": {"kind": "Service", "metadata": {"namespace": "default", '
        b'"name": "web", "resourceVersion": "1003"}}}\n'
    )


def test_a_node_has_no_namespace(objects):
    event = objects.put({"kind": "Node", "metadata": {"name": "alice"}})
    assert event.object["metadata"] == {"name": "alice", "resourceVersion": "1001"}


def test_lists_come_in_pages_that_keep_their_state(objects):
    for name in ("cart", "db", "web"):
        objects.put(service(name))
    first = objects.list(SERVICES, 2)
    objects.delete("Service", "web", "default")
    second = objects.list_on(first.token, 2)
    assert (names(first.items), first.revision) == (["cart", "db"], 1003)
    assert (names(second.items), second.revision, second.token) == (["web"], 1003, "")


def test_a_selection_takes_one_kind_and_one_name(objects):
    for name in ("alice", "bob"):
        objects.put({"kind": "Node", "metadata": {"name": name}})
    objects.put(service("alice"))
    assert names(objects.list(ObjectFilter("nodes", "alice"), 0).items) == ["alice"]
    assert names(e.object for e in objects.since(1000, ObjectFilter("nodes"))) == ["alice", "bob"]


def test_a_selection_takes_one_namespace_and_some_labels(objects):
    for name, namespace, labels in (
        ("a", "shop", {"app": "web", "tier": "x"}),
        ("b", "shop", {"app": "cart"}),
        ("c", "other", {"app": "web"}),
    ):
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        objects.put({"kind": "Pod", "metadata": metadata})
    wanted = ObjectFilter("pods", namespace="shop", labels=(("app", "web"),))
    assert names(objects.list(wanted, 0).items) == ["a"]


def test_forgotten_versions_are_expired(objects):
    objects.put(service("cart"))
    objects.put(service("web"))
    token = objects.list(SERVICES, 1).token
    objects.forget()
    with pytest.raises(Expired, match="too old to display"):
        objects.list_on(token, 1)
    with pytest.raises(Expired, match=r"too old resource version: 1002 \(1003\)"):
        objects.since(1002, SERVICES)
    assert objects.since(1003, SERVICES) == []


def test_unknown_paths_are_an_error(objects):
    with pytest.raises(KeyError, match="Deployment"):
        objects.put({"kind": "Deployment", "metadata": {"name": "web"}})
    with pytest.raises(KeyError):
        objects.delete("Service", "web", "default")


def test_a_watch_from_any_state_begins_with_what_is_there(objects):
    for name in ("cart", "web"):
        objects.put(service(name))
    objects.delete("Service", "cart", "default")
    objects.forget()
    (event,) = objects.since(0, SERVICES)
    assert (event.type, names([event.object])) == ("ADDED", ["web"])
