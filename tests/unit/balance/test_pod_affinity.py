"""Tests of affinity entries that the ports of a Service share."""

from userspace_proxy.balance import AffinityTables, Balancer
from userspace_proxy.balance.pod_affinity import PodAffinity
from userspace_proxy.model import SocketAddress

from ..model.samples import ALICE, BOB

SIP = [SocketAddress(f"10.244.1.{n}", 5060) for n in range(1, 4)]
RTP = [SocketAddress(f"10.244.1.{n}", 10000) for n in range(1, 4)]


def balancer(endpoints, tables, shares_as="shop/sip", start=0):
    return Balancer(
        endpoints, affinity_timeout_s=60, start=start, entries=tables, shares_as=shares_as
    )


def test_a_client_reaches_one_pod_on_all_ports():
    tables = AffinityTables()
    signalling, media = balancer(SIP, tables), balancer(RTP, tables, start=2)
    first, second = (signalling.pick(client, 0.0).ip for client in (ALICE, BOB))
    assert [media.pick(client, 1.0).ip for client in (ALICE, BOB)] == [first, second]
    assert first != second


def test_ports_of_other_services_have_separate_entries():
    tables = AffinityTables()
    one, other = balancer(SIP, tables), balancer(RTP, tables, "shop/other", start=2)
    assert one.pick(ALICE, 0.0).ip != other.pick(ALICE, 0.0).ip


def test_a_pod_no_longer_serving_a_port_loses_the_client_on_all_ports():
    tables = AffinityTables()
    signalling, media = balancer(SIP, tables), balancer(RTP, tables)
    pod = signalling.pick(ALICE, 0.0).ip
    media.update([e for e in RTP if e.ip != pod], affinity_timeout_s=60, shares_as="shop/sip")
    moved = media.pick(ALICE, 1.0).ip
    assert moved != pod
    assert signalling.pick(ALICE, 2.0).ip == moved


def test_affinity_entries_exist_until_the_last_port_is_removed():
    tables = AffinityTables()
    signalling, media = balancer(SIP, tables), balancer(RTP, tables)
    signalling.pick(ALICE, 0.0)
    signalling.forget_entries()
    assert len(tables) == 1
    media.forget_entries()
    assert len(tables) == 0


def test_a_port_no_longer_sharing_affinity_gets_its_own_entries():
    tables = AffinityTables()
    signalling, media = balancer(SIP, tables), balancer(RTP, tables, start=1)
    pod = signalling.pick(ALICE, 0.0).ip
    media.update(RTP, affinity_timeout_s=60, shares_as="")
    assert media.pick(ALICE, 1.0).ip != pod


def test_a_restored_affinity_entry_selects_its_pod_on_all_ports():
    former, tables = AffinityTables(), AffinityTables()
    old = balancer(SIP, former, start=1)
    pod = old.pick(ALICE, 0.0).ip
    new, media = balancer(SIP, tables), balancer(RTP, tables)
    new.restore(old.entries(1.0), 1.0)
    assert media.pick(ALICE, 2.0).ip == pod


def test_a_shortened_affinity_timeout_applies_to_existing_entries():
    affinity = PodAffinity("shop/sip", 60, AffinityTables())
    affinity.serve([*SIP, *RTP])
    affinity.remember(ALICE, SIP[0], 0.0)
    affinity.timeout_s = 10
    assert affinity.timeout_s == 10
    assert affinity.lookup(ALICE, (), 9.0) == SIP[0]
    assert affinity.lookup(ALICE, (), 10.0) is None
