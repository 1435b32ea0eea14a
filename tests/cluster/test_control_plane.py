"""The fixture itself: what a test may rely on."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import started

from .build import Binaries
from .control_plane import ControlPlane
from .credentials import NODE_PROXIER
from .readiness import ControlPlaneError

pytestmark = [pytest.mark.cluster, pytest.mark.long]

WATCH_LIST = (
    "/api/v1/services?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    "&allowWatchBookmarks=true&timeoutSeconds=1"
)


def make_service(control_plane: ControlPlane, name: str) -> str:
    """Make a Service in the namespace default and return its ClusterIP."""
    spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    control_plane.kubectl("apply", "-f", "-", input=json.dumps(service))
    return cluster_ip(control_plane, name)


def cluster_ip(control_plane: ControlPlane, name: str) -> str:
    return control_plane.kubectl("get", "service", name, "-o", "jsonpath={.spec.clusterIP}")


def dial(server: str) -> None:
    """Open a connection to an https URL and close it."""
    host, port = server.removeprefix("https://").split(":")
    socket.create_connection((host, int(port)), timeout=60).close()


def test_a_service_gets_a_cluster_ip_of_the_range(control_plane: ControlPlane) -> None:
    address = ipaddress.ip_address(make_service(control_plane, "web"))
    assert address in ipaddress.ip_network("10.96.0.0/16")


def test_a_list_arrives_as_a_watch_with_a_bookmark_at_its_end(control_plane: ControlPlane) -> None:
    assert "k8s.io/initial-events-end" in control_plane.kubectl("get", "--raw", WATCH_LIST)


def test_the_data_and_the_address_outlive_the_api_server(control_plane: ControlPlane) -> None:
    address, server = make_service(control_plane, "cart"), control_plane.server
    control_plane.stop_apiserver()
    control_plane.start_apiserver()
    assert (cluster_ip(control_plane, "cart"), control_plane.server) == (address, server)


def test_a_stopped_api_server_refuses_connections(control_plane: ControlPlane) -> None:
    dial(control_plane.server)
    control_plane.stop_apiserver()
    try:
        with pytest.raises(ConnectionRefusedError):
            dial(control_plane.server)
    finally:
        control_plane.start_apiserver()


def test_the_node_agents_user_may_list_endpoint_slices_once_it_is_granted(
    control_plane: ControlPlane,
) -> None:
    with pytest.raises(ControlPlaneError, match=r'User "userspace-proxy" cannot list'):
        control_plane.kubectl("get", "endpointslices", user=NODE_PROXIER)
    control_plane.grant_node_proxier()
    assert control_plane.kubectl("get", "endpointslices", "-o", "name", user=NODE_PROXIER) == ""
    with pytest.raises(ControlPlaneError, match=r'User "userspace-proxy" cannot list'):
        control_plane.kubectl("get", "secrets", user=NODE_PROXIER)


def test_a_kubeconfig_with_an_unknown_token_is_refused(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    path = tmp_path / "stranger.kubeconfig"
    control_plane.write_kubeconfig(path, "unknown-token")
    with pytest.raises(ControlPlaneError, match=r"must be logged in|Unauthorized"):
        control_plane.kubectl("--kubeconfig", str(path), "get", "services")


def test_stop_leaves_neither_a_process_nor_a_folder(cluster_binaries: Binaries) -> None:
    with ControlPlane(cluster_binaries) as control_plane:
        pid, folder = control_plane.apiserver_pid, control_plane.folder
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()


def test_a_start_that_fails_shows_the_log_and_cleans_up(
    cluster_binaries: Binaries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    control_plane = ControlPlane(cluster_binaries, apiserver_flags=["--no-such-flag"])
    with pytest.raises(ControlPlaneError, match=r"(?s)ended with status 1.*unknown flag"):
        control_plane.start()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def namespace() -> Iterator[list[str]]:
    """The prefix of a new network namespace, which has loopback and the address 192.0.2.1."""
    script = "ip link set lo up && ip address add 192.0.2.1/32 dev lo && echo up && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]
    with started(command) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "up\n"
        yield ["nsenter", "--preserve-credentials", "-U", "-n", "-t", str(holder.pid), "--"]


@pytest.mark.netns
def test_it_runs_inside_a_network_namespace(
    cluster_binaries: Binaries, namespace: list[str]
) -> None:
    with ControlPlane(
        cluster_binaries, prefix=namespace, bind_address="192.0.2.1", service_cidr="10.97.0.0/24"
    ) as control_plane:
        assert control_plane.server == "https://192.0.2.1:6443"
        assert make_service(control_plane, "web").startswith("10.97.0.")
        control_plane.stop_apiserver()
        control_plane.start_apiserver()
        assert control_plane.kubectl("get", "service", "web", "-o", "name")
