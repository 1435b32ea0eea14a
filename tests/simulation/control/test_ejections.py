"""Tests of how long news of ejections may be under way, which the oracle allows for."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from ..timeline import Timeline
from .ejections import Ejections
from .files import CONTROL, WORKER
from .machine import Machine, Process, Speed


@pytest.fixture
def node() -> Any:
    timeline = Timeline()
    machine = Machine(timeline, Random(1), Speed())
    world: Any = SimpleNamespace(machine=machine, timeline=timeline)
    return SimpleNamespace(
        timeline=timeline,
        control=Process(machine, CONTROL, "control"),
        worker=Process(machine, WORKER, "worker"),
        ejections=Ejections(world),
    )


def under_way_since(node: Any) -> float:
    found: float = node.ejections._under_way_since(node.worker, node.control)
    return found


@pytest.mark.parametrize("stopped", ["control", "worker"])
def test_a_stop_keeps_what_was_sent_just_before_it_and_later(node: Any, stopped: str) -> None:
    began, delay_s = node.timeline.now, node.ejections.delay_s
    getattr(node, stopped).loop.hold(6.0)
    node.timeline.now = began + 5.0
    # One more stop within the first one.
    getattr(node, stopped).loop.hold(0.1)
    for later_s in (5.0, 6.0, 6.0 + 0.9 * delay_s):
        node.timeline.now = began + later_s
        assert under_way_since(node) == began - delay_s


def test_a_stop_that_is_over_keeps_nothing(node: Any) -> None:
    node.control.loop.hold(6.0)
    node.timeline.now += 6.0 + 1.1 * node.ejections.delay_s
    assert under_way_since(node) == node.timeline.now - node.ejections.delay_s
