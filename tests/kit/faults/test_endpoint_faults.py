"""Faults by Service and endpoint."""

import asyncio

import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import Protocol, ServiceKey, SocketAddress
from userspace_proxy_testing.faults.endpoint_faults import At, EndpointFaults

WEB, DNS = ServiceKey("shop", "web"), ServiceKey("shop", "dns")
ONE, TWO = SocketAddress("127.0.0.1", 8081), SocketAddress("127.0.0.1", 8082)


class Rig:
    def __init__(self):
        self.detours = {}
        self.faults = EndpointFaults(self._detour)

    def _detour(self, service, detours, _why):
        self.detours[service] = detours

    def add(self, type_, endpoint=ONE, service=WEB, protocol=Protocol.TCP, **given):
        options = {key: given.pop(key) for key in ("stream", "toxicity", "name") if key in given}
        self.faults.add(service, endpoint, protocol, type_, given, **options)


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    await rig.faults.close()


async def test_an_endpoint_with_a_fault_is_dialled_through_a_detour(rig):
    rig.add("latency", latency=10)
    assert list(rig.detours[WEB]) == [At(Protocol.TCP, ONE)]
    assert rig.detours[WEB][At(Protocol.TCP, ONE)].ip == "127.0.0.1"
    rig.add("refuse", TWO)
    assert sorted(at.endpoint for at in rig.detours[WEB]) == [ONE, TWO]
    rig.faults.remove(WEB, ONE)
    assert [at.endpoint for at in rig.detours[WEB]] == [TWO]
    rig.faults.remove(WEB)
    rig.faults.remove(WEB)
    assert rig.detours[WEB] == {}


async def test_the_faults_of_each_endpoint_are_listed_as_text(rig):
    rig.add("latency", latency=10, jitter=2)
    rig.add("bandwidth", rate=5, stream="upstream", toxicity=0.25)
    rig.add("half_open")
    rig.add("fail_first", TWO, count=3)
    assert rig.faults.of(WEB) == {
        At(Protocol.TCP, ONE): [
            "latency(latency=10, jitter=2) downstream",
            "bandwidth(rate=5) upstream for 25% of connections",
            "half_open",
        ],
        At(Protocol.TCP, TWO): ["fails the next 3"],
    }
    assert rig.faults.of(DNS) == {}


async def test_a_fault_that_has_ended_is_not_listed(rig):
    rig.add("fail_first", count=1, at_connect=True)
    assert rig.faults.of(WEB) == {At(Protocol.TCP, ONE): ["fails the next 1 at connect"]}
    rig.add("fail_first", count=1)
    (server,) = rig.detours[WEB].values()
    reader, writer = await asyncio.open_connection(*server)
    writer.write(b"hello")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert rig.faults.of(WEB) == {}


async def test_a_fault_of_datagrams_is_listed_with_the_affected_share(rig):
    rig.add("latency", service=DNS, protocol=Protocol.UDP, latency=5, toxicity=0.5)
    words = ["latency(latency=5) downstream for 50% of datagrams"]
    assert rig.faults.of(DNS) == {At(Protocol.UDP, ONE): words}


async def test_a_fault_replaces_the_earlier_fault_of_its_name(rig):
    rig.add("latency", latency=10)
    rig.add("latency", latency=20)
    rig.add("latency", latency=30, name="more")
    assert rig.faults.of(WEB)[At(Protocol.TCP, ONE)] == [
        "latency(latency=20) downstream",
        "latency(latency=30) downstream",
    ]


async def test_udp_has_its_own_fault_types(rig):
    rig.add("loss", service=DNS, protocol=Protocol.UDP, percent=50)
    assert rig.faults.of(DNS) == {At(Protocol.UDP, ONE): ["loss(percent=50) downstream"]}
    with pytest.raises(ConfigError, match="fault refuse is for TCP only"):
        rig.add("refuse", service=DNS, protocol=Protocol.UDP)


@pytest.mark.parametrize(
    ("type_", "given", "words"),
    [
        pytest.param("latancy", {}, "did you mean latency", id="type"),
        pytest.param("refuse", {"count": 1}, "it takes none", id="too-many"),
        pytest.param("latency", {}, r"no latency or jitter is given \(give lat", id="without"),
        pytest.param("latency", {"latancy": 5}, "did you mean latency", id="attribute"),
        pytest.param("refuse", {"stream": "upstream"}, "it has no stream, toxicity", id="stream"),
        pytest.param("silent", {"toxicity": 0.5}, "it has no stream, toxicity", id="toxicity"),
        pytest.param("half_open", {"name": "one"}, "it has no stream, toxicity", id="name"),
    ],
)
async def test_an_invalid_fault_is_an_error_and_changes_nothing(rig, type_, given, words):
    with pytest.raises(ConfigError, match=words):
        rig.add(type_, **given)
    assert rig.detours == {}
