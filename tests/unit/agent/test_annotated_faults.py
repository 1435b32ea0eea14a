"""Faults that plans contain come into force, change and end with them."""

import errno
import logging
import socket

import pytest

from userspace_proxy.agent.annotated_faults import AnnotatedFaults
from userspace_proxy.model import (
    Fault,
    IPFamily,
    Protocol,
    ServiceKey,
    ServicePortName,
    SocketAddress,
)
from userspace_proxy.plan import PortKey, PortPlan
from userspace_proxy.policy import EndpointVerdict

WEB = ServiceKey("shop", "web")
ONE, TWO = SocketAddress("127.0.0.1", 8081), SocketAddress("127.0.0.1", 8082)
SLOW, REFUSE = Fault("latency", (("latency", 10),)), Fault("refuse")


def plan(*faults, endpoints=(ONE, TWO), port="http", protocol=Protocol.TCP):
    return PortPlan(
        PortKey(ServicePortName(*WEB, port), IPFamily.IPV4),
        protocol,
        frontends=(),
        endpoints=tuple(
            EndpointVerdict(address, is_usable=True, reason="ready") for address in endpoints
        ),
        usable=tuple(endpoints),
        faults=faults,
    )


@pytest.fixture
async def detours():
    return {}


@pytest.fixture
async def faults(detours):
    faults = AnnotatedFaults(detours.__setitem__)
    yield faults
    faults.close()


async def test_without_faults_nothing_is_made(faults, detours):
    faults.follow(plan())
    faults.forget(plan().key)
    assert (faults.of(WEB), faults._made, detours) == ({}, None, {})


async def test_each_endpoint_has_its_faults(faults, detours, caplog):
    caplog.set_level(logging.WARNING, "userspace_proxy.agent")
    faults.follow(plan(SLOW, Fault("refuse", endpoint=str(TWO))))
    assert faults.of(WEB) == {
        ONE: ["latency(latency=10) downstream"],
        TWO: ["latency(latency=10) downstream", "refuse"],
    }
    assert {at.endpoint for at in detours[WEB]} == {ONE, TWO}
    assert "has a fault on purpose" in caplog.messages[0]


async def test_an_endpoint_whose_faults_stay_keeps_its_server(faults, detours):
    faults.follow(plan(SLOW, Fault("refuse", endpoint=str(TWO))))
    kept = dict(detours[WEB])
    faults.follow(plan(SLOW))
    now = {at.endpoint: to for at, to in detours[WEB].items()}
    before = {at.endpoint: to for at, to in kept.items()}
    assert now[ONE] == before[ONE]
    assert faults.of(WEB)[TWO] == ["latency(latency=10) downstream"]


async def test_they_end_with_the_annotation_the_endpoint_and_the_port(faults, detours):
    faults.follow(plan(REFUSE))
    faults.follow(plan(REFUSE, endpoints=[TWO]))
    assert list(faults.of(WEB)) == [TWO]
    faults.follow(plan(endpoints=[TWO]))
    assert (faults.of(WEB), detours[WEB]) == ({}, {})
    faults.follow(plan(REFUSE))
    faults.forget(plan().key)
    faults.forget(plan().key)
    assert faults.of(WEB) == {}


async def test_ports_of_both_protocols_may_have_the_same_endpoint(faults, detours):
    faults.follow(plan(SLOW, port="tcp", endpoints=[ONE]))
    faults.follow(plan(SLOW, port="udp", endpoints=[ONE], protocol=Protocol.UDP))
    assert sorted(at.protocol for at in detours[WEB]) == [Protocol.TCP, Protocol.UDP]
    faults.forget(plan(port="tcp").key)
    assert [at.protocol for at in detours[WEB]] == [Protocol.UDP]


async def test_what_the_kernel_refuses_is_one_line_and_the_rest_is_served(
    faults, detours, caplog, monkeypatch
):
    def refuse(*_arguments, **_keywords):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    faults.follow(plan(SLOW, endpoints=[ONE]))
    assert "no fault on purpose at 127.0.0.1:8081: [Errno 24]" in caplog.text
    assert not detours.get(WEB)
