"""Kernel state of reply routing is added, repaired, shared and removed."""

from textwrap import dedent

import pytest
from steering_replies import SHOW, Catching

from tests.node.processes import run_without_capabilities

pytestmark = pytest.mark.netns


@pytest.mark.kernel
def test_reply_routing_has_its_own_table_and_rules_and_is_removed_completely(cluster):
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
    script = (
        "import asyncio; from userspace_proxy.steering import ReplyRouting\n"
        "async def main():\n"
        "    answers = ReplyRouting(); print(await answers.start()); await answers.close()\n"
        "asyncio.run(main())"
    )
    with cluster.node:
        said = run_without_capabilities(script)
    assert "Operation not permitted" in said
