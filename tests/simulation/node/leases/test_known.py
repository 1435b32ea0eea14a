"""Tests of what the model takes nodes to know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from .known import Known


def test_a_node_that_may_not_write_events_sends_none_until_it_tries_again_or_starts_again() -> None:
    node = SimpleNamespace(started_at=1.0)
    world: Any = SimpleNamespace(began=0.0, now=10.0, node=lambda _name: node)
    known = Known(world)
    path = "/apis/events.k8s.io/v1/namespaces/shop/events"
    refused: Any = SimpleNamespace(
        path=path, code=403, error="", client=SimpleNamespace(node="alice")
    )
    known.answered(refused)
    found = [known.sends_no_events("alice", key) for key in ("shop/web", "default/web")]
    assert found == [True, False]
    assert not known.sends_no_events("bob", "shop/web")
    world.now = 610.0
    assert not known.sends_no_events("alice", "shop/web")
    world.now, node.started_at = 20.0, 15.0
    assert not known.sends_no_events("alice", "shop/web")
