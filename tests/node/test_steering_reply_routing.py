"""Kernel state of reply routing is added, repaired, shared and removed."""

import socket
from textwrap import dedent

import pytest
from steering_replies import CLIENTS, SHOW, UDP, Catching, bound, dial, peer_of

from tests.node.processes import run_without_capabilities
from userspace_proxy.kernel.nf_tables import writer
from userspace_proxy.steering import REPLY_TABLES

pytestmark = pytest.mark.netns


def test_ipv6_replies_are_delivered_once_ipv6_is_enabled(cluster):
    setting = "sysctl -qw net.ipv6.conf.all.disable_ipv6"
    cluster.node.run(f"{setting}=1")
    with Catching(cluster) as catching:
        assert "rejects IPv6 routes" in catching.without_ipv6
        assert "lookup 11800" in cluster.node.run("ip rule")
        assert "11800" not in cluster.node.run("ip -6 rule")
        assert catching.do("repair") == 0
        with bound(cluster.pod, UDP, socket.AF_INET) as server:
            dialling, _ = dial(cluster, UDP, 4)
            with socket.socket(fileno=dialling.detach()) as dialling:
                assert peer_of(server, UDP, dialling)[0] == CLIENTS[4]
        cluster.node.run(f"{setting}=0")
        assert catching.do("repair") == 4
        assert catching.without_ipv6 == ""
        assert "lookup 11800" in cluster.node.run("ip -6 rule")
        cluster.node.run(f"{setting}=1")
        catching.do("repair")
        assert catching.without_ipv6 != ""


@pytest.mark.kernel
def test_reply_routing_matches_the_documentation_and_is_removed(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster) as catching:
        running = cluster.node.run(SHOW)
        assert "table inet userspace-proxy/replies\n" in running
        assert running.count("lookup 11800") == 2
        assert "118:\tfrom all fwmark 0x1000/0x1000 iif lo goto 120 proto 118" in running
        catching.do("start")
        assert cluster.node.run(SHOW) == running
        catching.do("clean_up")
        assert cluster.node.run(SHOW) == before
        catching.do("clean_up")


@pytest.mark.needs("table owner")
def test_the_reply_table_ends_with_its_process_and_the_routes_are_reused(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster):
        running = cluster.node.run(SHOW)
    left = cluster.node.run(SHOW)
    assert "userspace-proxy" not in left
    assert left.count("lookup 11800") == 2
    with Catching(cluster) as catching:
        assert cluster.node.run(SHOW) == running
        catching.do("close")
        catching.do("clean_up")
        assert cluster.node.run(SHOW) == before


@pytest.mark.needs("table owner")
def test_a_table_left_by_an_older_version_is_replaced(cluster):
    cluster.node.run("nft add table inet userspace-proxy/replies '{ chain prerouting { }; }'")
    with Catching(cluster):
        table = cluster.node.run("nft list table inet userspace-proxy/replies")
    assert "flags owner" in table
    assert "socket transparent 1" in table


def test_the_last_of_two_proxies_removes_the_shared_routes(cluster):
    before = cluster.node.run(SHOW)
    with Catching(cluster) as one, Catching(cluster, "canary") as other:
        with cluster.node:
            assert REPLY_TABLES.labels_here() == ["", "canary"]
        other.do("clean_up")
        assert "lookup 11800" in cluster.node.run(SHOW)
        one.do("clean_up")
        assert cluster.node.run(SHOW) == before


@pytest.mark.parametrize(
    ("harm", "parts"),
    [
        pytest.param("ip rule del pref 119; ip -6 rule del pref 119", 2, id="rules"),
        pytest.param("ip rule del pref 118; ip rule del pref 120", 2, id="way-back"),
        pytest.param("ip -6 rule del pref 118; ip -6 rule del pref 120", 2, id="way-back-ipv6"),
        pytest.param("ip route flush table 11800", 1, id="route"),
        pytest.param("ip route add 10.9.0.0/24 dev pod0; nft add table ip others", 0, id="others"),
    ],
)
def test_reply_routing_changed_by_another_program_is_repaired(cluster, catching, harm, parts):
    before = cluster.node.run("nft list ruleset; " + SHOW)
    cluster.node.run(harm)
    assert [catching.do("repair") for _ in range(2)] == [parts, 0]
    assert cluster.node.run("nft list ruleset; " + SHOW) == before or not parts


@pytest.mark.needs("table owner")
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param("nft flush ruleset", id="flush-of-everything"),
        pytest.param("nft delete table inet userspace-proxy/replies || true", id="table"),
        pytest.param("nft flush chain inet userspace-proxy/replies prerouting || true", id="chain"),
    ],
)
def test_no_other_program_can_change_the_table(cluster, catching, harm):
    before = cluster.node.run("nft list ruleset")
    cluster.node.run(harm)
    assert cluster.node.run("nft list ruleset") == before
    assert catching.do("repair") == 0


def test_without_table_owner_support_the_reply_table_is_repaired(cluster, monkeypatch):
    """A table with an owner is refused with the error of such a kernel: an unsupported flag."""
    monkeypatch.setattr(writer, "TABLE_OWNED", 1 << 31)
    with Catching(cluster) as catching:
        before = cluster.node.run("nft list ruleset")
        assert "flags owner" not in before
        for harm in ("flush ruleset", "flush chain inet userspace-proxy/replies prerouting"):
            cluster.node.run(f"nft {harm}")
            assert [catching.do("repair") for _ in range(2)] == [1, 0]
            assert cluster.node.run("nft list ruleset") == before
        catching.do("clean_up")
        assert cluster.node.run("nft list tables") == ""


@pytest.mark.needs("table owner")
@pytest.mark.usefixtures("catching")
def test_nft_lists_the_reply_table_as_written(cluster):
    listed = cluster.node.run("nft list table inet userspace-proxy/replies")
    # The first line has the owner's process name.
    assert listed.expandtabs(4).partition("\n")[2] == dedent("""\
            flags owner

            chain defragment {
                meta l4proto udp tproxy to :1
            }

            chain divert {
            }

            chain prerouting {
                type filter hook prerouting priority dstnat + 1; policy accept;
                tcp dport < 61000 accept
                meta l4proto { tcp, udp } th dport 61000-65535 socket transparent 1 socket wildcard 0 meta mark set meta mark | 0x00001000 goto divert
                meta l4proto { icmp, ipv6-icmp } socket transparent 1 socket wildcard 0 meta mark set meta mark | 0x00001000 goto divert
            }
        }
    """)  # noqa: E501


def test_a_missing_capability_is_returned_as_the_reason(cluster):
    """It is returned in a process whose user has no capabilities."""
    script = (
        "import asyncio; from userspace_proxy.steering import ReplyRouting\n"
        "async def main():\n"
        "    answers = ReplyRouting(); print(await answers.start()); await answers.close()\n"
        "asyncio.run(main())"
    )
    with cluster.node:
        said = run_without_capabilities(script)
    assert "Operation not permitted" in said
