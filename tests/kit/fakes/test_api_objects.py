"""The objects of the fake API server."""

from __future__ import annotations

import pytest

from userspace_proxy_testing.fakes.api_objects import FakeObjects, ObjectFilter

SERVICES = ObjectFilter("services")


@pytest.fixture
def objects():
    return FakeObjects()


def service(name: str) -> dict[str, object]:
    return {"kind": "Service", "metadata": {"name": name}}


def names(items) -> list[str]:
    return [item["metadata"]["name"] for item in items]


def test_a_node_object_has_no_namespace(objects):
    event = objects.put({"kind": "Node", "metadata": {"name": "alice"}})
    assert event.object["metadata"] == {"name": "alice", "resourceVersion": "1001"}


def test_unknown_kinds_and_objects_are_rejected(objects):
    with pytest.raises(KeyError, match="Deployment"):
        objects.put({"kind": "Deployment", "metadata": {"name": "web"}})
    with pytest.raises(KeyError):
        objects.delete("Service", "web", "default")


def test_a_watch_from_version_0_begins_with_existing_objects(objects):
    for name in ("cart", "web"):
        objects.put(service(name))
    objects.delete("Service", "cart", "default")
    objects.forget()
    (event,) = objects.since(0, SERVICES)
    assert (event.type, names([event.object])) == ("ADDED", ["web"])
