"""What the kernel carries, as JSON; tests/node counts real connections."""

from __future__ import annotations

import json
from dataclasses import replace

from userspace_proxy.kernel.ctnetlink import pack_address
from userspace_proxy.model import Path
from userspace_proxy.status.kernel_path import render_tracked
from userspace_proxy.status.paths import PathView

from .views import make_endpoint, make_frontend, make_port, make_view


def test_entries_are_counted_by_endpoint_for_all_addresses_of_a_port():
    frontends = tuple(make_frontend(f"10.96.7.{n}:80", "ClusterIP", "") for n in (1, 2))
    endpoints = (make_endpoint("10.244.1.2:8080"), make_endpoint("10.244.1.3:8080"))
    port = make_port(frontends=frontends, endpoints=endpoints)
    on_kernel_path = replace(port, path=PathView(Path.KERNEL))
    web, other, first = (
        pack_address("10.96.7.1", 80),
        pack_address("10.96.7.2", 80),
        pack_address("10.244.1.2", 8080),
    )
    asked = []

    def count(version, protocol):
        asked.append((version, protocol))
        return {(web, first): 3, (other, first): 1, (web, pack_address("10.1.0.1", 8080)): 7}

    shown = json.loads(render_tracked(make_view(on_kernel_path, make_port("cart")), count))
    assert shown == {
        "ports": [
            {
                "namespace": "shop",
                "service": "web",
                "port": "http",
                "family": "IPv4",
                "protocol": "TCP",
                "side": "",
                "endpoints": [
                    {"address": "10.244.1.2:8080", "tracked": 4},
                    {"address": "10.244.1.3:8080", "tracked": 0},
                ],
            }
        ]
    }
    assert asked == [(4, 6)]


def test_nothing_is_listed_where_no_service_takes_the_kernel_path():
    assert json.loads(render_tracked(make_view(make_port()))) == {"ports": []}
