"""Tests of what the model of TCP ends expects where bytes arrive just after the last look."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any, cast

from .judgements import Judgements
from .network import Network
from .streams import OPEN, Stream
from .tcp_ends import RESET_WAIT_S, Relayed, TcpEnds
from .timeline import Timeline


def judged(*, is_asked: bool) -> list[str]:
    """Return what is wrong if bytes arrive just before a reset, after the look if there was one."""
    timeline = Timeline()
    network = Network(
        timeline, Random(1), delay_s=0, segment_bytes=9, inbox_bytes=99, outbox_bytes=99, loss=0
    )
    sink, source, client = (Stream(network, name) for name in ("sink", "source", "client"))
    sink.peer, sink.outbox[:] = client, b"rest"
    sink.state = client.state = OPEN
    sink.accepted_bytes = source.received_bytes = 4
    source.failed_at = timeline.now
    timeline.run_until(timeline.now + 2 * RESET_WAIT_S)
    now = timeline.now
    if is_asked:
        assert sink.ask_unacknowledged() == 4
    client.data_at = now
    del sink.outbox[:2]
    judgements = Judgements()
    world = SimpleNamespace(judgements=judgements, timeline=timeline, moment=lambda: (now, now))
    relayed = cast("Relayed", SimpleNamespace(left=sink, right=source, number=1, held=held))
    TcpEnds(cast("Any", world))._judge_rest(relayed)
    return [one.oracle for one in judgements.violations]


def held(*, is_up: bool) -> int:
    assert not is_up
    return 0


def test_what_arrives_after_the_last_look_changes_nothing() -> None:
    assert judged(is_asked=True) == []


def test_a_reset_without_a_look_loses_what_was_promised() -> None:
    assert judged(is_asked=False) == ["bytes before a RST"]


def test_what_the_process_was_told_counts_in_its_turn() -> None:
    network = Network(
        Timeline(), Random(1), delay_s=0, segment_bytes=9, inbox_bytes=99, outbox_bytes=99, loss=0
    )
    stream = Stream(network, "left")
    stream.outbox[:] = b"late"
    asked_at = network.timeline.now
    assert stream.ask_unacknowledged() == 4
    stream.outbox.clear()
    found = [stream.unacknowledged_since(since) for since in (asked_at, asked_at + 0.001)]
    assert found == [4, 0]
