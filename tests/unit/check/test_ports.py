import contextlib
import socket

import pytest

from userspace_proxy.check.ports import (
    find_holders,
    find_range_holder,
    judge_descriptors,
    judge_holders,
    judge_range_holder,
    judge_ranges,
)
from userspace_proxy.kernel.port_holders import PortHolder
from userspace_proxy.model import SocketAddress

from ..port_numbers import look_no_further_than, own_name

LOCAL = "net.ipv4.ip_local_port_range"
RESERVED = "net.ipv4.ip_local_reserved_ports"


@pytest.mark.parametrize(
    ("local", "reserved", "hint"),
    [
        ("32768\t60999", "", ""),
        ("29000 29500", "", f"--proxy-ports below it; or sysctl -w {RESERVED}=29000-29500"),
        ("29000 29500", "29000-29400,29401-29999", ""),
        (
            "29000 29500",
            "8080",
            f"--proxy-ports below it; or sysctl -w {RESERVED}=8080,29000-29500",
        ),
        ("", "", ""),
    ],
)
def test_proxy_ports_overlapping_the_ephemeral_range_are_a_warning(local, reserved, hint):
    (found,) = judge_ranges(
        {LOCAL: local, RESERVED: reserved}, (17000, 29999), uses_client_ports=True
    )
    assert found.hint == hint
    assert (found.mark == "warning") == bool(hint)


def test_node_ports_overlapping_the_ephemeral_range_are_a_warning():
    (found,) = judge_ranges({LOCAL: "32000 60999"}, (17000, 29999), uses_client_ports=True)
    assert found.what == (
        "the node's own connections may take node ports 32000-32767: "
        "net.ipv4.ip_local_port_range is 32000-60999"
    )


@pytest.mark.parametrize(
    ("last", "shared"), [(29999, ""), (30000, "30000-30000"), (31000, "30000-31000")]
)
def test_proxy_ports_among_node_ports_are_reported(last, shared):
    (found,) = judge_ranges({LOCAL: "32768 60999"}, (29000, last), uses_client_ports=False)
    assert (found.mark == "warning", f"overlaps node ports ({shared})" in found.what) == (
        bool(shared),
        bool(shared),
    )


def test_client_source_ports_are_checked_only_if_used():
    values = {LOCAL: "32768 65535"}
    (found,) = judge_ranges(values, (17000, 29999), uses_client_ports=True)
    assert found.what == (
        "the node's own connections may take the source ports of connections with client addresses "
        "61000-65535: net.ipv4.ip_local_port_range is 32768-65535"
    )
    assert found.hint == f"sysctl -w {RESERVED}=61000-65535"
    (found,) = judge_ranges(values, (17000, 29999), uses_client_ports=False)
    assert found.mark == "ok"


@pytest.mark.parametrize(
    ("limit", "ports", "marks"),
    [
        pytest.param(20_000, None, ["ok"], id="unknown"),
        pytest.param(20_000, 1_000, ["ok"], id="enough"),
        pytest.param(20_000, 10_000, ["warning"], id="few-descriptors"),
        pytest.param(1_000_000, 13_000, ["error"], id="few-ports"),
    ],
)
def test_too_few_descriptors_or_ports_are_reported(limit, ports, marks):
    assert [f.mark for f in judge_descriptors(limit, ports, 2, (17000, 29999))] == marks


def test_a_proxy_address_used_by_another_program_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = SocketAddress(*server.getsockname())
        holders = find_holders([("--metrics-bind-address", address), ("--healthz", None)])
    assert list(holders) == [f"--metrics-bind-address={address}"]
    (found,) = judge_holders({"--x=1:2": PortHolder("nginx", 812)}, [])
    assert (found.mark, found.what) == ("error", "--x=1:2: nginx (pid 812) uses that port")
    assert judge_holders({"--x=1:2": PortHolder("python", 812)}, [812]) == []


def test_a_proxy_port_range_used_up_by_other_programs_is_an_error():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        holder = find_range_holder((port, port))
    assert str(holder) == own_name()
    (found,) = judge_range_holder(PortHolder("nc", 812), (17000, 29999), [])
    assert (found.mark, found.what) == (
        "error",
        "no proxy port of 17000-29999 is free: nc (pid 812) holds some of them",
    )
    assert judge_range_holder(PortHolder("python", 812), (17000, 29999), [812]) == []


def test_a_program_holding_any_port_of_the_range_is_named(monkeypatch):
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("", port))) for port in range(27520, 27523)
        ]
        look_no_further_than(servers[0], monkeypatch)
        assert str(find_range_holder((27520, 27522))) == own_name()


def test_a_proxy_port_range_with_a_free_port_has_no_finding():
    assert find_range_holder((29000, 29999)) is None
    assert judge_range_holder(None, (29000, 29999), []) == []
