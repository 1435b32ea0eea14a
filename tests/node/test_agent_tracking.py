"""The status ports stay reachable while the conntrack table is full."""

from __future__ import annotations

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import ADMIN, HEALTH
from tests.node.clients import http_get
from tests.node.conntrack import fill_for_good
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")


UNTRACKED = """\
table inet userspace-proxy/untracked { # progname python3
	flags owner

	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		tcp dport 10249 fib daddr type local notrack
		tcp dport 10256 fib daddr type local notrack
	}

	chain output {
		type filter hook output priority raw; policy accept;
		tcp dport 10249 fib daddr type local notrack
		tcp dport 10256 fib daddr type local notrack
		tcp sport 10249 notrack
		tcp sport 10256 notrack
	}
}
"""


@pytest.mark.long
@pytest.mark.needs("table owner")
@pytest.mark.parametrize("steering", ["nftables", "local"])
def test_status_ports_are_reachable_from_outside_with_a_full_conntrack_table(tmp_path, steering):
    with Testbed(tmp_path, steering, f"--metrics-bind-address=0.0.0.0:{ADMIN}") as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        # The kernel tracks connections only if a rule needs that, unlike with local steering.
        testbed.shell(
            "nft 'add table ip t; add chain ip t c { type filter hook input priority 9; }'"
        )
        testbed.shell("nft add rule ip t c ct state new counter")
        assert "untracked" not in testbed.rules()
        fill_for_good(testbed)

        def answer(path: str, port: int) -> tuple[int, str]:
            return http_get(testbed["laptop"].tcp(), (str(testbed.node.ip), port), path)

        assert answer("/livez", HEALTH)[0] == 200
        assert answer("/healthz", HEALTH)[0] == 503, "new connections to Services fail here"
        assert answer("/", ADMIN)[0] == 200
        assert "\nuserspace_proxy_conntrack_full 1\n" in answer("/metrics", ADMIN)[1]
        assert testbed.agent.read("/livez", port=HEALTH)[0] == 200
        table = testbed.shell("nft list table inet userspace-proxy/untracked")
        assert table.partition("\n")[2] == UNTRACKED.partition("\n")[2]
        testbed.shell("conntrack -F")
        wait_for("the end of it", lambda: answer("/healthz", HEALTH)[0] == 200)
        assert "untracked" not in testbed.rules()
