"""The listeners of Service ports follow the plan, in all steering modes."""

import contextlib
import socket
import struct

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.agent.rounds import listen_addresses
from userspace_proxy.model import (
    Balance,
    Frontend,
    Handling,
    Hold,
    Protocol,
    ServiceKey,
    SocketAddress,
)
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import PortPool
from userspace_proxy.policy import NodeFacts
from userspace_proxy.steering import REFUSE, Bind
from userspace_proxy_testing.faults.endpoint_faults import At

from ...port_numbers import free_port, is_listening, look_no_further_than, own_name
from ..conftest import retry
from ..samples import Cluster

POD = "192.0.2.1"


def frontend(ip, port=80, protocol=Protocol.TCP):
    return Frontend(ip, port, protocol)


async def test_without_usable_endpoints_the_target_is_refuse_and_the_proxy_port_is_kept(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    port = served_ports.follow(cluster.serve("web", "10.96.0.1", POD))[frontend("10.96.0.1")]
    assert served_ports.follow(cluster.serve("web", "10.96.0.1")) == {frontend("10.96.0.1"): REFUSE}
    assert not is_listening(port)
    assert served_ports.follow(cluster.serve("web", "10.96.0.1", POD)) == {
        frontend("10.96.0.1"): port
    }
    assert is_listening(port)


async def test_a_program_that_uses_the_whole_proxy_port_range_is_named(make, monkeypatch):
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("0.0.0.0", port)))
            for port in range(27510, 27513)
        ]
        # In a process with thousands of ports, only the lowest descriptors are searched.
        look_no_further_than(servers[0], monkeypatch)
        served_ports = make(Bind.PROXY_PORT, PortPool(27510, 27512))
        assert served_ports.follow(Cluster().serve("web", "10.96.0.1", POD)) == {
            frontend("10.96.0.1"): REFUSE
        }
        (served,) = served_ports
        assert served.problem == (
            "cannot listen for shop/web: no proxy port of 27510-27512 is free, "
            f"{own_name()} has some"
        )
        assert served.hint == "widen --proxy-ports"
        assert not retry(served_ports)
    assert retry(served_ports)
    assert served_ports.steered.targets().keys() == {frontend("10.96.0.1")}
    served_ports.steered.mark(served_ports.steered.change())
    assert not served.problem


async def test_a_problem_is_shown_until_clients_are_steered_to_the_listener(make, caplog):
    caplog.set_level("INFO")
    with socket.create_server(("0.0.0.0", 27710)) as holder:
        served_ports = make(Bind.PROXY_PORT, PortPool(27710, 27710))
        served_ports.follow(Cluster().serve("web", "10.96.0.1", POD))
        (served,) = served_ports
        holder.close()
        # The change isn't marked as applied, as if the kernel had refused it twice.
        assert retry(served_ports)
        assert retry(served_ports)
        assert "no proxy port of 27710-27710 is free" in served.problem
        assert "has ended" not in caplog.text
        assert "served now" not in caplog.text
        served_ports.steered.mark(served_ports.steered.change())
        assert not served.problem
        assert "listener shortage has ended" in caplog.text
        assert not retry(served_ports)


async def test_log_lines_of_a_constantly_changing_service_are_limited(make, caplog):
    caplog.set_level("INFO")
    served_ports, cluster = make(Bind.FRONTEND), Cluster()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        for _ in range(30):
            for at in (port, 27712):
                served_ports.follow(cluster.serve("web", "127.0.0.1", POD, port=at))
                served_ports.steered.mark(served_ports.steered.change())
    assert caplog.text.count("frontends are not served") >= 5
    lines = caplog.text.count("served now") + caplog.text.count("frontends are not served")
    assert lines == 20


async def test_a_service_removed_before_being_steered_is_not_logged_as_served(make, caplog):
    caplog.set_level("INFO")
    cluster = Cluster()
    with socket.create_server(("0.0.0.0", 27711)) as holder:
        served_ports = make(Bind.PROXY_PORT, PortPool(27711, 27711))
        served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
        holder.close()
        assert retry(served_ports)
        served_ports.follow(cluster.remove("web"))
        assert "has ended" not in caplog.text
        assert "served now" not in caplog.text


async def test_an_exhausted_range_is_reported_only_for_the_later_service(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT, PortPool(27600, 27600))
    served_ports.follow(cluster.serve("cart", "10.96.0.1", POD))
    targets = served_ports.follow(cluster.serve("web", "10.96.0.2", POD))
    assert targets == {frontend("10.96.0.1"): 27600, frontend("10.96.0.2"): REFUSE}
    problems = [served.problem for served in served_ports]
    assert problems == ["", "cannot listen for shop/web: no proxy port of 27600-27600 is free"]
    assert [served.hint for served in served_ports] == ["", "widen --proxy-ports"]
    assert not retry(served_ports)
    served_ports.follow(cluster.remove("cart"))
    assert retry(served_ports)
    assert served_ports.steered.targets() == {frontend("10.96.0.2"): 27600}
    served_ports.steered.mark(served_ports.steered.change())
    assert not any(served.problem for served in served_ports)


async def test_a_service_port_reopens_a_given_up_listener_once_a_port_is_free(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT, PortPool(27604, 27643))
    served_ports.follow(cluster.serve_large(40))
    served_ports.follow(cluster.serve("web", "10.96.0.2", POD))
    assert retry(served_ports)
    served_ports.follow(cluster.store.snapshot())
    assert retry(served_ports)
    assert served_ports.steered.targets()[frontend("10.96.0.2")] is not REFUSE
    assert REFUSE in served_ports.follow(cluster.remove("web")).values()
    assert retry(served_ports)
    assert REFUSE not in served_ports.steered.targets().values()


async def test_ports_tried_for_a_removed_service_count_as_untried(make, monkeypatch):
    monkeypatch.setattr(listen_addresses, "_TRIES", 2)
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT, PortPool(27601, 27603))
    with contextlib.ExitStack() as stack:
        for port in range(27601, 27604):
            stack.enter_context(socket.create_server(("0.0.0.0", port)))
        served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
        served_ports.follow(cluster.remove("web"))
        assert not retry(served_ports)
        served_ports.follow(cluster.serve("cart", "10.96.0.2", POD))
        (served,) = served_ports
        assert served.hint == "others are tried each second"


async def test_a_changed_protocol_replaces_the_frontend(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
    targets = served_ports.follow(cluster.serve("web", "10.96.0.1", POD, protocol="UDP"))
    assert targets.keys() == {frontend("10.96.0.1", protocol=Protocol.UDP)}


async def test_udp_service_ports_are_tracked_while_served(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, protocol="UDP"))
    assert [*served_ports.of_udp] == [*served_ports]
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
    assert not served_ports.of_udp
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, protocol="UDP"))
    served_ports.close()
    assert not served_ports.of_udp


async def test_a_udp_port_whose_clients_were_refused_serves_on_the_same_proxy_port(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    (port,) = served_ports.follow(cluster.serve("dns", "10.96.0.1", POD, protocol="UDP")).values()
    served_ports.follow(cluster.serve("dns", "10.96.0.1", protocol="UDP"))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief,
        pytest.raises(OSError, match="in use"),
    ):
        thief.bind(("0.0.0.0", port))
    (same,) = served_ports.follow(cluster.serve("dns", "10.96.0.1", POD, protocol="UDP")).values()
    assert same == port


@pytest.mark.parametrize("bind", [Bind.FRONTEND, Bind.LOOPBACK])
async def test_a_service_taking_over_a_frontend_takes_over_its_listener(make, bind):
    cluster, served_ports = Cluster(), make(bind)
    served_ports.follow(cluster.serve("web", "127.98.0.5", POD, port=8080))
    (before,) = [dict(served.listeners) for served in served_ports]
    cluster.remove("web")
    served_ports.follow(cluster.serve("cart", "127.98.0.5", POD, port=8080))
    (after,) = served_ports
    assert (after.group.label, after.listeners) == ("shop/cart", before)
    assert is_listening(8080, "127.98.0.5")


async def test_a_listener_that_cannot_be_handed_over_is_retried(make):
    cluster, served_ports = Cluster(), make(Bind.FRONTEND)
    served_ports.follow(cluster.serve("dns", "127.98.0.6", port=8080, protocol="UDP"))
    cluster.remove("dns")
    with descriptors_left(0):
        targets = served_ports.follow(
            cluster.serve("other", "127.98.0.6", POD, port=8080, protocol="UDP")
        )
        assert set(targets.values()) == {REFUSE}
        assert not retry(served_ports)
    assert retry(served_ports)
    assert set(served_ports.steered.targets().values()) == {8080}


async def test_a_changed_cluster_ip_moves_the_listener(make):
    cluster, served_ports = Cluster(), make(Bind.FRONTEND)
    served_ports.follow(cluster.serve("web", "127.98.0.3", POD, port=8080))
    served_ports.follow(cluster.serve("web", "127.98.0.4", POD, port=8080))
    assert is_listening(8080, "127.98.0.4")
    assert not is_listening(8080, "127.98.0.3")


async def test_after_close_no_port_listens_and_no_frontend_has_a_target(make):
    served_ports = make(Bind.PROXY_PORT)
    (port,) = served_ports.follow(Cluster().serve("web", "10.96.0.1", POD)).values()
    served_ports.close()
    assert not is_listening(port)
    assert served_ports.steered.targets() == {}


async def test_policies_of_the_plan_reach_the_data_plane(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    handling = Handling(balance=Balance.LEAST_CONNECTIONS, keeps_clients=False)
    more = {
        "handling": handling,
        "affinity_timeout_s": 60,
    }
    pod = SocketAddress(POD, 8080)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
    (served,) = served_ports
    assert served.group.serving == Serving((pod,))
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, **more))
    assert served.group.serving == Serving((pod,), 60, handling=handling)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, is_internal_local=True))
    assert served.group.serving == Serving((), admits=())


async def test_workers_receive_the_plan_unchanged_except_for_detours(make):
    served_ports = make(Bind.PROXY_PORT)
    served_ports.follow(Cluster().serve("web", "10.96.0.1", POD))
    (served,) = served_ports
    serving, (pod,) = served.plan.serving, served.plan.serving.endpoints
    assert served.group.serving is serving
    elsewhere = SocketAddress("127.0.0.1", 9)
    detours = {At(protocol, pod): elsewhere for protocol in Protocol}
    served_ports.detour(served.plan.key.name.service, detours, dict)
    assert served.group.serving == serving.detoured(((pod, elsewhere),))
    served_ports.detour(served.plan.key.name.service, {}, dict)
    assert served.group.serving is serving


async def test_a_service_dropping_all_clients_is_steered_to_its_proxy_port(make):
    targets = make(Bind.PROXY_PORT).follow(
        Cluster().serve("web", "10.96.0.1", POD, is_internal_local=True)
    )
    assert targets[frontend("10.96.0.1")] is not REFUSE


AT_NODE = NodeFacts(addresses=("127.0.0.1", "127.98.0.9"))


def bound(protocol, port):
    """Return a daemon's socket that listens on one address."""
    tcp = protocol is Protocol.TCP
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    try:
        sock.bind(("127.98.0.9", port))
    except OSError:
        sock.close()
        raise
    if tcp:
        sock.listen()
    return sock


BOTH = pytest.mark.parametrize("protocol", list(Protocol))


@BOTH
async def test_a_node_port_is_reserved_until_its_service_is_removed(make, protocol):
    port, cluster, served_ports = (
        free_port(protocol),
        Cluster(),
        make(Bind.PROXY_PORT, facts=AT_NODE),
    )
    web = {"protocol": str(protocol), "node_port": port}
    targets = served_ports.follow(cluster.serve("web", "10.96.0.1", POD, **web))
    assert {f.port for f in targets} == {80, port}
    assert len(set(targets.values())) == 1, "all frontends lead to one proxy port"
    with pytest.raises(OSError, match="in use"):
        bound(protocol, port)
    served_ports.follow(cluster.remove("web"))
    bound(protocol, port).close()


@BOTH
async def test_a_node_port_used_by_another_program_is_steered_once_freed(make, protocol):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT, facts=AT_NODE)
    with bound(protocol, 0) as daemon:
        port = daemon.getsockname()[1]
        web = {"protocol": str(protocol), "node_port": port}
        targets = served_ports.follow(cluster.serve("web", "10.96.0.1", POD, **web))
        assert targets.keys() == {frontend("10.96.0.1", protocol=protocol)}
        (served,) = served_ports
        assert served.problem.startswith(f"node port {port}/{protocol} is held by ")
        assert served.hint == "stop that process, or give the Service another port"
        assert not retry(served_ports)
    assert retry(served_ports)
    assert {f.port for f in served_ports.steered.targets()} == {80, port}
    served_ports.steered.mark(served_ports.steered.change())
    assert not any(served.problem for served in served_ports)
    with pytest.raises(OSError, match="in use"):
        bound(protocol, port)


async def test_a_node_port_that_moves_to_another_service_is_steered_and_reserved(make):
    port, cluster, served_ports = free_port(), Cluster(), make(Bind.PROXY_PORT, facts=AT_NODE)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, node_port=port))
    cluster.remove("web")
    targets = served_ports.follow(cluster.serve("cart", "10.96.0.2", POD, node_port=port))
    assert {f.port for f in targets} == {80, port}
    with pytest.raises(OSError, match="in use"):
        bound(Protocol.TCP, port)


async def test_a_retry_that_resolves_one_of_two_problems_reports_a_change(make):
    with socket.create_server(("0.0.0.0", 27700)), bound(Protocol.TCP, 0) as daemon:
        served_ports = make(Bind.PROXY_PORT, PortPool(27700, 27700), AT_NODE)
        port = daemon.getsockname()[1]
        served_ports.follow(Cluster().serve("web", "10.96.0.1", POD, node_port=port))
        daemon.close()
        assert retry(served_ports)
        assert not retry(served_ports)
        assert set(served_ports.steered.targets().values()) == {REFUSE}


async def test_a_node_port_used_by_a_connection_is_reserved_after_the_connection_ends(make):
    served_ports = make(Bind.PROXY_PORT, facts=AT_NODE)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
    with client, accepted:
        served_ports.follow(Cluster().serve("web", "10.96.0.1", POD, node_port=port))
        # Reset the connection, so that its port isn't left in TIME_WAIT.
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert not retry(served_ports)
    with pytest.raises(OSError, match="in use"):
        bound(Protocol.TCP, port)


async def test_a_bound_frontends_listener_reserves_its_node_port(make):
    port, served_ports = free_port(), make(Bind.FRONTEND, facts=AT_NODE)
    targets = served_ports.follow(Cluster().serve("web", "127.98.0.5", POD, node_port=port))
    assert targets.keys() >= {frontend(ip, port) for ip in AT_NODE.addresses}
    assert is_listening(port, "127.98.0.9")


async def test_served_ports_of_a_service_are_returned(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    cluster.serve("web", "10.96.0.1", POD)
    served_ports.follow(cluster.serve_large(2))
    large = served_ports.of_service(ServiceKey("shop", "large"))
    assert [served.plan.key.name.port for served in large] == ["p00001", "p00002"]
    cluster.serve_large(1)
    served_ports.follow(cluster.remove("web"))
    assert len(served_ports.of_service(ServiceKey("shop", "large"))) == 1
    assert not served_ports.of_service(ServiceKey("shop", "web"))


async def test_an_update_of_a_service_port_changes_only_its_own_targets(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    for n in range(20):
        cluster.serve(f"other-{n}", f"10.96.1.{n}", POD)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
    (web,) = (served for served in served_ports if served.plan.key.name.name == "web")
    served_ports.update(web.plan)
    assert [served for served, _ in served_ports.steered.change().targets] == [web]


async def test_a_descriptor_shortage_is_logged_once_for_all_services(make, caplog):
    served_ports = make(Bind.PROXY_PORT)
    cluster = Cluster()
    for number in range(1, 6):
        snapshot = cluster.serve(f"web-{number}", f"10.96.0.{number}", POD)
    with descriptors_left(0):
        served_ports.follow(snapshot)
    lines = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    (line,) = lines
    assert line.startswith("shop/web-1: cannot open listeners: Too many open files")


async def test_only_endpoints_added_after_a_cordon_receive_clients(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    handling = Handling(hold=Hold(60.0))
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, handling=handling))
    (served,) = served_ports.holding
    key = ServiceKey("shop", "web")

    def endpoints():
        return [endpoint.ip for endpoint in served.group.serving.endpoints]

    served_ports.cordon(key, is_cordoned=True)
    assert endpoints() == []
    assert is_listening(served.listeners[frontend("10.96.0.1")].address.port)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, "192.0.2.2", handling=handling))
    assert endpoints() == ["192.0.2.2"]
    served_ports.cordon(key, is_cordoned=False)
    assert sorted(endpoints()) == [POD, "192.0.2.2"]


async def test_a_terminating_endpoint_is_also_cordoned(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    handling = Handling(hold=Hold(60.0))
    cluster.serve("web", "10.96.0.1", POD, handling=handling)
    served_ports.follow(cluster.serve_beside_terminating("web", POD, "192.0.2.2"))
    (served,) = served_ports.holding
    served_ports.cordon(ServiceKey("shop", "web"), is_cordoned=True)
    served_ports.follow(cluster.terminate("web", POD, "192.0.2.2"))
    assert served.plan.serving.all_endpoints
    assert served.group.serving.endpoints == ()


async def test_listeners_of_a_removed_service_port_are_no_longer_counted(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
    held = served_ports.shortages.shares._held.services
    assert held.total > 0
    served_ports.follow(cluster.remove("web"))
    assert held.total == 0


async def test_service_ports_holding_clients_are_tracked_while_served(make):
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD))
    assert not served_ports.holding
    served_ports.follow(cluster.serve("web", "10.96.0.1", POD, handling=Handling(hold=Hold(60.0))))
    assert len(served_ports.holding) == 1
    served_ports.follow(cluster.remove("web"))
    assert not served_ports.holding
