"""iptables steering with a helper per family; tests/node has the contract and real traffic."""

from __future__ import annotations

import errno

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.offers import KernelOffers
from userspace_proxy.model import Frontend, IPFamily, Protocol, SocketAddress
from userspace_proxy.steering import REFUSE, SteeringFacts
from userspace_proxy.steering.iptables import IptablesSteering

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)


@pytest.fixture
async def steering(node):
    steering = IptablesSteering(SteeringFacts(refuse_port=35999, proxy_name="canary"))
    yield steering
    await steering.close()


async def test_the_helper_of_an_ip_family_starts_with_its_first_frontend(steering):
    await steering.apply({WEB: 36001})
    assert steering.helper_pids.keys() == {IPFamily.IPV4}
    await steering.change({WEB_6: 36002, DNS: REFUSE}, ())
    assert steering.helper_pids.keys() == {IPFamily.IPV4, IPFamily.IPV6}
    assert await steering.render() == (
        "TCP 10.96.7.1:80 -> :36001\nTCP [fd00:96::1]:80 -> :36002\nUDP 10.96.0.10:53 -> refuse"
    )
    assert await steering.repair() == 0
    assert (steering.unguarded, steering.helper_restarts) == ("", 0)


async def test_other_programs_chains_are_named_that_drop_packets_at_a_proxy_port_or_endpoint(
    node, steering
):
    await steering.apply({WEB: 36001, DNS: REFUSE})
    node.run(
        "ip link add cni0 type bridge; ip link set cni0 up; ip route add 10.244.0.7 dev cni0; "
        "nft 'table ip evil { "
        "chain in { type filter hook input priority 0; tcp dport 36001 drop; }; "
        "chain out { type filter hook output priority 0; oif cni0 drop; }; }'"
    )
    await steering.repair()
    assert steering.unsteered.keys() == {WEB}
    endpoints = [SocketAddress(f"10.244.0.{number}", 80) for number in (7, 8)]
    dropping = [steering.dropping_chain(one, Protocol.TCP) for one in endpoints]
    assert [bool(chain) for chain in dropping] == [True, False]
    with descriptors_left(0):
        assert steering.dropping_chain(endpoints[0], Protocol.TCP) == "", "a chain without a query"


async def test_rules_outlive_the_helpers_and_are_recovered_and_removed_later(node, steering):
    await steering.apply({WEB: 36001, WEB_6: REFUSE})
    await steering.close()
    assert steering.helper_pids == {}
    assert await steering.labels() == ["canary"]
    assert await steering.start() == {WEB: 36001, WEB_6: 0}
    await steering.clean_up()
    assert "UPROXY" not in node.run("iptables-legacy-save; ip6tables-legacy-save")
    assert await steering.render() == ""


async def test_a_first_apply_rejected_for_ipv6_leaves_no_ipv4_rules(steering, monkeypatch):
    def refuse(_request):
        raise SteeringError("no memory")

    with monkeypatch.context() as refused:
        refused.setattr(steering._helpers[IPFamily.IPV6], "ask", refuse)
        with pytest.raises(SteeringError, match="no memory"):
            await steering.apply({WEB: 36001, WEB_6: 36002})
    assert await steering.render() == ""


async def test_without_ipv6_tables_ipv4_is_steered_and_ipv6_is_reported_as_unsteered(node):
    kernel = KernelOffers({"legacy tables of IPv6": errno.ENOPROTOOPT})
    steering = IptablesSteering(SteeringFacts(refuse_port=35999), kernel)
    try:
        await steering.apply({WEB: 36001, WEB_6: 36002})
        await steering.change({DNS: REFUSE, WEB_6: 36003}, ())
        assert await steering.repair() == 0
        assert steering.helper_pids.keys() == {IPFamily.IPV4}
        assert await steering.render() == (
            "TCP 10.96.7.1:80 -> :36001\nUDP 10.96.0.10:53 -> refuse"
        )
        assert steering.unsteered == {
            WEB_6: "cannot steer [fd00:96::1]:80/TCP: this kernel lacks legacy tables of IPv6 "
            "(modprobe -a ip6_tables ip6table_nat ip6table_filter, CONFIG_NETFILTER_XTABLES_LEGACY)"
        }
        await steering.clean_up()
    finally:
        await steering.close()
