from userspace_proxy.model import (
    DEFAULT_HANDLING,
    Handling,
    Hold,
    Protocol,
    ProxyProtocol,
    Workload,
    WorkloadKind,
)


def test_clients_at_the_endpoint_limit_wait_a_minute_or_as_long_as_hold():
    assert DEFAULT_HANDLING.waits is None
    assert Handling(max_connections=1).waits == Hold(60, 1000)
    assert Handling(max_connections=1, hold=Hold(5, 2)).waits == Hold(5, 2)


def test_a_workload_is_formatted_as_in_the_annotation():
    assert str(Workload(WorkloadKind.DEPLOYMENT, "web")) == "deployment/web"


def test_only_tcp_ports_get_a_proxy_header():
    asked = Handling(proxy_protocol=ProxyProtocol.V2, max_connections=1)
    assert asked.of(Protocol.TCP) is asked
    assert asked.of(Protocol.UDP) == Handling(max_connections=1)
    assert DEFAULT_HANDLING.of(Protocol.UDP) is DEFAULT_HANDLING
