"""Tests of endpoints that are dialled through another address."""

from userspace_proxy.model import (
    IPFamily,
    PortKey,
    Protocol,
    ServiceKey,
    ServicePortName,
    SocketAddress,
)
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import PortPlan
from userspace_proxy.plan.detours import At, Detours

WEB = ServiceKey("shop", "web")
POD, ELSEWHERE = SocketAddress("10.0.0.1", 80), SocketAddress("127.0.0.1", 9)
KEY = PortKey(ServicePortName("shop", "web", "http"), IPFamily.IPV4)
PLAN = PortPlan(KEY, Protocol.TCP, (), (), Serving((POD,)))


def test_workers_get_the_plans_serving_object_if_there_is_no_detour():
    detours = Detours()
    assert detours.lead(PLAN) is PLAN.serving
    assert detours.faults_of(PLAN) == {}


def test_a_port_uses_only_detours_of_its_own_protocol():
    detours = Detours()
    detours.set(WEB, {At(protocol, POD): ELSEWHERE for protocol in Protocol}, dict)
    assert detours.lead(PLAN) == PLAN.serving.detoured(((POD, ELSEWHERE),))
    detours.set(WEB, {At(Protocol.UDP, POD): ELSEWHERE}, dict)
    assert detours.lead(PLAN).detours == ()


def test_injected_faults_are_read_on_demand_until_their_detour_ends():
    detours, words = Detours(), ["refuse"]
    why = {At(Protocol.TCP, POD): words, At(Protocol.UDP, POD): ["loss"]}
    detours.set(WEB, dict.fromkeys(why, ELSEWHERE), lambda: why)
    words.append("latency")
    assert detours.faults_of(PLAN) == {POD: ["refuse", "latency"]}
    detours.set(WEB, {}, lambda: why)
    assert detours.faults_of(PLAN) == {}
    assert detours.lead(PLAN) is PLAN.serving
