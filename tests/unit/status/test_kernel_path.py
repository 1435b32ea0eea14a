"""Tests of the JSON about kernel-path traffic; tests/node counts real connections."""

from __future__ import annotations

import json

from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.kernel.conntrack import Tracked
from userspace_proxy.kernel.ctnetlink import Volume, pack_address
from userspace_proxy.model import DataPath
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.status.kernel_path import legs_of_ranges, render_tracked

from .views import make_endpoint, make_frontend, make_port, make_view, replace

WEB, OTHER = pack_address("10.96.7.1", 80), pack_address("10.96.7.2", 80)
FIRST, STRANGER = pack_address("10.244.1.2", 8080), pack_address("10.1.0.1", 8080)
ENTRIES = {(WEB, FIRST): 3, (OTHER, FIRST): 1, (WEB, STRANGER): 7}


def shown(tracked):
    """Return the response about a Service with two addresses, and the number of listings."""
    frontends = tuple(make_frontend(f"10.96.7.{n}:80", "ClusterIP", "") for n in (1, 2))
    endpoints = (make_endpoint("10.244.1.2:8080"), make_endpoint("10.244.1.3:8080"))
    port = make_port(frontends=frontends, endpoints=endpoints)
    on_kernel_path = replace(port, path=PathView(DataPath.KERNEL))
    asked = []

    def count(version, protocol):
        asked.append((version, protocol))
        return tracked

    return json.loads(render_tracked(make_view(on_kernel_path, make_port("cart")), count)), asked


def test_tracked_connections_are_counted_by_endpoint_over_all_addresses():
    answer, asked = shown(Tracked(ENTRIES, None))
    (port,) = answer["ports"]
    unknown = dict.fromkeys(Volume._fields)
    assert port.pop("endpoints") == [
        {"address": "10.244.1.2:8080", "tracked": 4, **unknown},
        {"address": "10.244.1.3:8080", "tracked": 0, **unknown},
    ]
    assert port == {
        "namespace": "shop",
        "service": "web",
        "port": "http",
        "family": "IPv4",
        "protocol": "TCP",
        "side": "",
    }
    assert asked == [(4, 6)]
    assert answer["note"] == "bytes aren't counted while net.netfilter.nf_conntrack_acct is 0"


def test_bytes_and_packets_are_summed_if_the_kernel_accounts_for_them():
    volumes = {(WEB, FIRST): Volume(1, 2, 3, 4), (OTHER, FIRST): Volume(10, 20, 30, 40)}
    answer, _ = shown(Tracked(ENTRIES, volumes))
    first, second = answer["ports"][0]["endpoints"]
    assert (first["received_bytes"], first["sent_bytes"]) == (11, 22)
    assert (first["received_packets"], first["sent_packets"]) == (33, 44)
    assert (second["received_bytes"], second["sent_packets"]) == (0, 0)
    assert answer["note"] == ""


def test_tracked_ports_are_empty_if_no_service_uses_the_kernel_path():
    assert json.loads(render_tracked(make_view(make_port()))) == {"note": "", "ports": []}


def test_tracked_connections_of_a_range_belong_to_the_listed_endpoint():
    dialled = {port: pack_address("10.96.7.1", port) for port in (79, 80, 85, 91)}
    legs = {
        (dialled[85], pack_address("10.244.1.2", 8085)): 1,
        (dialled[80], FIRST): 1,
        (dialled[91], pack_address("10.244.1.2", 8091)): 1,
        (dialled[79], pack_address("10.244.1.2", 8079)): 1,
        (pack_address("10.96.7.2", 85), pack_address("10.244.1.2", 8085)): 1,
    }
    found = legs_of_ranges([DialledRange("10.96.7.1", 80, 90, 80)], Tracked(legs, None))
    assert found == {FIRST: [(dialled[85], pack_address("10.244.1.2", 8085))]}
