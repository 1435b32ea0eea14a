from types import SimpleNamespace

import pytest

from userspace_proxy.model import IPFamily, Service, ServiceKey, SocketAddress
from userspace_proxy.model.pod_endpoints import (
    PodEndpoint,
    PodKey,
    PodPort,
    PodSelection,
    TargetPort,
)
from userspace_proxy_testing.backend import Backend, FaultControl
from userspace_proxy_testing.places import BackendPlace
from userspace_proxy_testing.running_pods import PodFollower, RunningPod, SelectingService

WEB = ServiceKey("shop", "web")
TARGETS = (TargetPort("http", "TCP", "web"), TargetPort("admin", "TCP", 9090))
PORT = PodPort(8080, "TCP")
WRITTEN = {"metadata": {"uid": "1"}}
WHERE = SocketAddress("127.0.0.2", 41123)


def selected(*families, targets=TARGETS):
    selection = PodSelection(targets, families or (IPFamily.IPV4,))
    return SelectingService(Service(WEB, ()), selection)


def read_pod(protocol="TCP", **ports):
    facts = {"is_ready": False, "is_terminating": False, "has_ended": False}
    named = {(name, protocol): number for name, number in ports.items()}
    return PodEndpoint(PodKey("shop", "web-1"), frozenset(), (), ports=named, **facts)


def test_a_single_backend_serves_every_port():
    assert selected().likes("127.0.0.1:1") == dict.fromkeys(["http", "admin"], "127.0.0.1:1")


def test_each_port_may_have_its_own_backend():
    assert selected().likes({"http": None}) == {"http": None}


def test_an_unknown_port_is_reported_with_the_existing_ports():
    with pytest.raises(ValueError, match=r"shop/web has no port 'htp'; it has 'http', 'admin'"):
        selected().likes({"htp": None})


def test_named_target_ports_resolve_to_container_ports():
    wanted = selected().likes(None)
    assert selected().ports_of(read_pod(web=80), wanted) == {
        "http": PodPort(80, "TCP"),
        "admin": PodPort(9090, "TCP"),
    }


def test_a_named_target_port_resolves_only_to_a_port_of_its_protocol():
    both = selected(targets=(TargetPort("dns", "UDP", "web"),))
    assert both.ports_of(read_pod("UDP", web=53), {"dns": None}) == {"dns": PodPort(53, "UDP")}
    with pytest.raises(ValueError, match="has no UDP port of the name web"):
        both.ports_of(read_pod("TCP", web=53), {"dns": None})


def test_an_unresolved_target_port_is_an_error_only_for_a_served_port():
    what = "Pod web-1 has no TCP port of the name web, the target port of shop/web"
    with pytest.raises(ValueError, match=what):
        selected().ports_of(read_pod(), {"http": None})
    assert selected().ports_of(read_pod(), {"admin": None}) == {"admin": PodPort(9090, "TCP")}


@pytest.mark.parametrize(
    ("families", "host"),
    [
        pytest.param((IPFamily.IPV4,), "127.0.0.1", id="ipv4"),
        pytest.param((IPFamily.IPV4, IPFamily.IPV6), "127.0.0.1", id="dual-stack"),
        pytest.param((IPFamily.IPV6,), "::1", id="ipv6"),
    ],
)
def test_a_pods_address_has_a_family_of_the_service(families, host):
    assert selected(*families).host == host


def view(service, address, reason):
    """Return the parts of a Service port's status that a PodFollower reads."""
    verdicts = [SimpleNamespace(address=address, reason=reason)]
    name = SimpleNamespace(service=service)
    return SimpleNamespace(plan=SimpleNamespace(key=SimpleNamespace(name=name), verdicts=verdicts))


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("ready", "ready"),
        ("not ready", "not ready"),
        ("terminating", "terminating"),
        ("terminating, not serving", "terminating"),
        ("on another node", "ready"),
    ],
)
def test_an_endpoints_state_is_its_pods_state_regardless_of_policy(reason, state):
    follower = PodFollower(WEB, PORT, publishes_not_ready=False)
    assert follower.state_in([view(WEB, WHERE, reason)], WHERE) == state


def test_endpoints_of_other_services_and_addresses_are_ignored():
    follower = PodFollower(WEB, PORT, publishes_not_ready=False)
    other = SocketAddress("127.0.0.3", 1)
    views = [view(ServiceKey("shop", "db"), WHERE, "ready"), view(WEB, other, "ready")]
    assert follower.state_in(views, WHERE) == ""


def test_a_pod_shows_its_state_and_writes_each_change():
    written = []
    pod = RunningPod(PodKey("shop", "web-1"), WRITTEN, lambda pod: written.append(pod.is_ready))
    pod.backends[PodPort(8080, "TCP")] = Backend("web-1", WHERE, BackendPlace())
    assert repr(pod) == "<Pod shop/web-1, ready, 8080/TCP at 127.0.0.2:41123>"
    pod.is_ready = False
    with pytest.raises(AttributeError, match="has no attribute 'is_redy'"):
        pod.is_redy = True
    assert (written, pod.name) == ([False], "web-1")
    assert ", not ready," in repr(pod)
    pod.is_terminating = True
    assert ", terminating," in repr(pod)


@pytest.mark.parametrize(
    ("is_ready", "is_terminating", "publishes", "state"),
    [
        pytest.param(True, False, False, "ready", id="ready"),
        pytest.param(False, False, False, "not ready", id="not-ready"),
        pytest.param(False, False, True, "ready", id="published-not-ready"),
        pytest.param(True, True, False, "terminating", id="terminating"),
        pytest.param(True, True, True, "ready", id="published-terminating"),
    ],
)
def test_an_endpoints_state_follows_its_pods_conditions(is_ready, is_terminating, publishes, state):
    pod = RunningPod(PodKey("shop", "web-1"), WRITTEN, lambda _pod: None)
    pod.is_ready, pod.is_terminating = is_ready, is_terminating
    assert pod.expected_state(PodFollower(WEB, PORT, publishes)) == state


def test_stop_and_fault_apply_to_all_ports_of_a_pod():
    calls = []

    class Noted(Backend):
        def stop(self):
            calls.append(("stop", self.name))

        def start(self):
            calls.append(("start", self.name))

    pod = RunningPod(PodKey("shop", "web-1"), WRITTEN, lambda _pod: None)
    control = FaultControl(
        lambda type_, **more: calls.append((type_, more["endpoint"].port, more["latency"])),
        lambda **more: calls.append(("heal", more["endpoint"].port)),
    )
    for number in (1, 2):
        backend = Noted(f"port-{number}", SocketAddress("127.0.0.2", number), BackendPlace())
        backend.attach(control)
        pod.backends[PodPort(number, "TCP")] = backend
    pod.stop()
    pod.start()
    pod.fault("latency", latency=5)
    pod.heal()
    assert calls == [
        ("stop", "port-1"), ("stop", "port-2"), ("start", "port-1"), ("start", "port-2"),
        ("latency", 1, 5), ("latency", 2, 5), ("heal", 1), ("heal", 2),
    ]  # fmt: skip
