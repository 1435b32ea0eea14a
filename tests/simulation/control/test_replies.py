"""Tests of whether a worker that stood in for another one is to pass a late reply on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from userspace_proxy.model import SocketAddress

from ..judgements import Judgements
from .replies import ORACLE, Replies

POD = SocketAddress("10.2.0.1", 80)
NUMBER = -6


class _Judged(Replies):
    """All else holds that makes a reply due."""

    def _has_time(self, *_args: Any) -> bool:
        return True

    def _is_served(self, *_args: Any) -> bool:
        return True


def judge(asker: Any, worker: Any) -> Judgements:
    judgements, speed = Judgements(), SimpleNamespace(latency_s=0.001)
    world: Any = SimpleNamespace(
        judgements=judgements, machine=SimpleNamespace(speed=speed), is_over=False
    )
    _Judged(world)._judge(POD, asker, worker, 1.0)
    return judgements


@pytest.fixture
def worker() -> Any:
    serves = SimpleNamespace(_listeners={NUMBER: object()})
    return SimpleNamespace(
        name="worker 1",
        is_dead=False,
        loop=SimpleNamespace(held_until=0.0),
        main=SimpleNamespace(_worker=serves),
    )


@pytest.fixture
def asker(worker: Any) -> Any:
    stand_in = worker.main._worker._listeners[NUMBER]
    return SimpleNamespace(number=1, endpoint="", asked_at=0.5, stand_in=stand_in)


def test_one_that_stands_in_is_to_pass_it_on(asker: Any, worker: Any) -> None:
    assert [each.oracle for each in judge(asker, worker).violations] == [ORACLE]


def test_one_that_stands_in_again_has_lost_it(asker: Any, worker: Any) -> None:
    worker.main._worker._listeners[NUMBER] = object()
    judged = judge(asker, worker)
    assert not judged.violations
    assert judged.excused.total() == 1
