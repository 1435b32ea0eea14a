"""Tests of which ejected endpoints need not be shown as that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from userspace_proxy.model import DialFailure, Failure, SocketAddress

from .streaks import Streaks

GROUP, POD = 1, SocketAddress("10.2.0.1", 80)


@pytest.fixture
def node() -> Any:
    """One whose workers have reported all."""
    timeline = SimpleNamespace(now=1.0, after=lambda *_args: None)
    world: Any = SimpleNamespace(
        timeline=timeline,
        ejections=SimpleNamespace(delay_s=0.5),
        reporting=SimpleNamespace(is_from=lambda *_args: True),
    )
    control = object()
    return SimpleNamespace(
        streaks=Streaks(world),
        timeline=timeline,
        control=control,
        worker=SimpleNamespace(parent=control),
    )


def fail(node: Any) -> None:
    failed = DialFailure(Failure.REFUSED, 111)
    node.streaks.note_failed(node.worker, GROUP, POD, failed, node.timeline.now)


def is_hidden(node: Any) -> bool:
    found: bool = node.streaks.is_hidden(node.control, GROUP, POD)
    return found


def test_one_whose_dial_failed_is_shown(node: Any) -> None:
    fail(node)
    assert not is_hidden(node)


def test_one_that_has_left_since_its_dial_failed_may_be_hidden(node: Any) -> None:
    fail(node)
    node.timeline.now = 2.0
    node.streaks.note_served(node.control, GROUP, POD)
    assert is_hidden(node)
    node.timeline.now = 3.0
    fail(node)
    assert not is_hidden(node)
