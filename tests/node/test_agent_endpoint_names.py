"""Endpoints by name, on a node whose resolv.conf names a real DNS server outside.

pod ──▶ node-1: userspace-proxy run --allow-endpoint-names=example.com ──▶ db-1, db-2
                   └── DNS ──▶ dns, whose records a test writes
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.broken_services import NAMESPACE, Shown
from tests.node.observers import Expected, in_explain, in_json, on_page
from tests.node.testbed import Testbed
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy_testing.sandbox import write_resolver_files
from userspace_proxy_testing.sandbox.address_plan import POD_CIDR

pytestmark = pytest.mark.netns

FLAGS = ("--allow-endpoint-names=example.com", f"--cluster-cidr={POD_CIDR}")
PORT = 5432


class NamingAgent(Agent):
    """An agent on a node with its own resolv.conf."""

    files = Path()

    @property
    def command(self) -> list[str]:
        """The command line, in a mount namespace with the node's files."""
        files = write_resolver_files(self.files, "198.51.100.2", "none")
        prefix = self.node.prefix_with_files({"/etc/resolv.conf": files["/etc/resolv.conf"]})
        return [*prefix[len(self.node.prefix) :], *super().command]


class Site(Testbed):
    """The testbed with a DNS server and two databases outside."""

    def __init__(self, folder: Path) -> None:
        state = f"--state-dir={folder / 'state'}"
        super().__init__(folder, "nftables", *FLAGS, state, agent=NamingAgent)
        assert isinstance(self.agent, NamingAgent)
        self.agent.files = folder
        self.databases: dict[str, str] = {}
        self._zone = folder / "zone.json"
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self.resolve()
        dns = self.sandbox.add_outside("dns")
        assert str(dns.ip) == "198.51.100.2"
        command = [sys.executable, "-m", "tests.dns_zone", str(dns.ip), str(self._zone)]
        server = dns.popen(command, stdout=subprocess.PIPE, env=dict(os.environ))
        assert server.stdout is not None
        with server.stdout:
            assert server.stdout.readline() == "ready\n"
        for name in ("db-1", "db-2"):
            host = self.sandbox.add_outside(name)
            host.serve(tcp=PORT)
            self.databases[name] = str(host.ip)
        self.agent.manifests.write()
        self.agent.start_until_ready()

    def resolve(self, **names: list[str]) -> None:
        """Make names below example.com resolve to exactly these addresses."""
        records = {
            f"{name}.example.com {kind}": [0, *(ip for ip in ips if (":" in ip) is is_6)]
            for name, ips in names.items()
            for kind, is_6 in (("A", False), ("AAAA", True))
        }
        text = self._zone.with_suffix(".new")
        text.write_text(json.dumps(records))
        text.replace(self._zone)

    def serve_name(self, name: str, ip: str, text: str, *more_ips: str) -> None:
        """Write a Service with this annotation."""
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": NAMESPACE,
                "name": name,
                "annotations": {"userspace-proxy.io/endpoints": text},
            },
            "spec": {"clusterIP": ip, "clusterIPs": [ip, *more_ips], "ports": [{"port": 80}]},
        }
        self.agent.manifests.write_objects([service], name=f"{name}.yaml")

    def endpoints(self, name: str) -> list[str]:
        return [
            endpoint["address"]
            for port in self.agent.status()["ports"]
            if port["service"] == name and not self.agent.status()["sync"]["waiting_since"]
            for endpoint in port["endpoints"]
            if endpoint["is_usable"]
        ]

    def address(self, name: str) -> str:
        return f"{self.databases[name]}:{PORT}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(tmp_path_factory.mktemp("agent")) as site:
        yield site


def check_note(agent: Agent, expected: Expected) -> None:
    """Wait until every output with a Service's notes has this one."""
    for shows in (in_json, on_page, in_explain):
        wait_for(expected.sentence, lambda shows=shows: shows(agent, expected))  # type: ignore[misc]


def test_clients_reach_a_name_on_another_port_and_fail_over_between_its_addresses(site):
    one, two = site.address("db-1"), site.address("db-2")
    unused = "198.51.100.99"
    site.resolve(db=[site.databases["db-1"], unused])
    site.serve_name("db", "10.96.3.1", f"db.example.com:{PORT}")
    wait_for("both", lambda: site.endpoints("db") == [one, f"{unused}:{PORT}"], hint=site.agent.log)
    for _ in range(4):
        # The address that doesn't answer costs time, but no request fails.
        assert "db-1" in site["pod"].get(("10.96.3.1", 80))
    site.resolve(db=[site.databases["db-2"]])
    wait_for("the other", lambda: site.endpoints("db") == [two])
    assert "db-2" in site["pod"].get(("10.96.3.1", 80))
    site.resolve()
    sentence = (
        "db.example.com no longer resolves, its last addresses are used: DNS has no such name"
    )
    check_note(site.agent, Expected("db", CauseCode.NAME_UNRESOLVED, sentence, Shown.PORT))
    assert "db-2" in site["pod"].get(("10.96.3.1", 80))
