"""The relay: what a line does to packets, and a real connection across it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import Client
from userspace_proxy_testing.sandbox import Sandbox

from .link import Link
from .relay import Conditions, Line

PACKETS = [bytes([number]) * 100 for number in range(200)]


def line_with(conditions: Conditions) -> Line:
    line = Line()
    line.conditions = conditions
    return line


def pushed(line: Line) -> Line:
    for packet in PACKETS:
        line.push(packet, 0.0)
    return line


def test_a_line_without_conditions_delivers_at_once_and_in_order() -> None:
    line = pushed(Line())
    assert list(line.pop(0.0)) == PACKETS
    assert line.next_s is None


def test_a_delayed_packet_arrives_when_its_delay_is_over() -> None:
    line = line_with(Conditions(delay_s=0.2))
    line.push(b"packet", 1.0)
    assert line.next_s == pytest.approx(1.2)
    assert list(line.pop(1.19)) == []
    assert list(line.pop(1.21)) == [b"packet"]


def test_a_line_loses_about_the_share_that_it_should() -> None:
    arrived = list(pushed(line_with(Conditions(loss=0.2))).pop(0.0))
    assert 140 <= len(arrived) <= 180
    assert arrived == sorted(arrived, key=PACKETS.index)


def test_a_reordered_packet_is_passed_by_later_ones_and_none_is_lost() -> None:
    arrived = list(pushed(line_with(Conditions(reordered=0.1))).pop(1.0))
    assert arrived != PACKETS
    assert sorted(arrived) == PACKETS


def test_a_cut_line_delivers_nothing() -> None:
    line = pushed(line_with(Conditions(is_cut=True)))
    assert list(line.pop(9.0)) == []


def test_a_slow_line_delivers_at_its_rate_and_drops_what_its_queue_cannot_hold() -> None:
    # 100 bytes each: 10 packets a second.
    line = pushed(line_with(Conditions(bits_per_s=8000, queue_bytes=1000)))
    assert [len(list(line.pop(second + 0.01))) for second in range(3)] == [0, 10, 1]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("the relay needs /dev/net/tun, which only root may open here")
    with Sandbox() as sandbox:
        yield sandbox


@pytest.mark.netns
def test_connections_cross_the_relay_and_feel_its_conditions(sandbox: Sandbox) -> None:
    pod = sandbox.add_pod("far")
    pod.serve(tcp=8080)
    link = Link(sandbox.node, pod)
    client = Client(sandbox.node)
    address = str(pod.ip), 8080

    def seconds() -> float:
        began = time.monotonic()
        assert client.get(address) == "far"
        return time.monotonic() - began

    wait_for("the link", lambda: seconds() < 0.1)
    link.set(Conditions(delay_s=0.1))
    # A round trip to connect, and one to ask.
    assert seconds() >= 0.4
    link.set(Conditions(loss=0.1, reordered=0.2))
    assert [client.get(address) for _ in range(5)] == ["far"] * 5
    link.set(Conditions(is_cut=True))
    with client.tcp() as silent:
        silent.settimeout(0.3)
        with pytest.raises(TimeoutError):
            silent.connect(address)
    link.set()
    assert client.get(address) == "far"
    client.close()
    link.close()
    assert not Path(f"/proc/{link.pid}").exists()
