import pytest

from userspace_proxy.filters.chains import Chain, ChainTable
from userspace_proxy.filters.kube_proxy import find_kube_proxy, kube_proxy_chains


def tables_of(**chains):
    """Return tables with chains; each argument is named ``family_name`` for its table."""
    named = {read(table): names for table, names in chains.items()}
    return {table: {name: Chain(table, name) for name in names} for table, names in named.items()}


def read(table):
    *legacy, family, name = table.split("_")
    return ChainTable(family, name, is_legacy=bool(legacy))


OWN_TABLE = ChainTable("ip", "kube-proxy")
KUBELET = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-MARK-MASQ", "KUBE-POSTROUTING", "OUTPUT"]


@pytest.mark.parametrize(
    ("nft", "legacy", "links", "places"),
    [
        ({}, {}, (), ()),
        ({"ip_nat": KUBELET}, {"ip_nat": KUBELET}, ("eth0", "lo"), ()),
        ({"inet_kube-proxy": ["x"]}, {}, (), ()),
        ({"ip_kube-proxy": ["x"]}, {}, (), (f"nftables table {OWN_TABLE}",)),
        (
            {"ip6_nat": [*KUBELET, "KUBE-SEP-X", "KUBE-SERVICES"]},
            {},
            (),
            ("chain KUBE-SERVICES of table ip6 nat",),
        ),
        ({"ip_filter": ["KUBE-SERVICES"]}, {}, (), ()),
        ({}, {"legacy_ip_nat": ["KUBE-SVC-Y"]}, (), ("chain KUBE-SVC-Y of table legacy ip nat",)),
        ({}, {}, ("lo", "kube-ipvs0"), ("interface kube-ipvs0",)),
    ],
)
def test_kube_proxy_is_found_by_its_own_tables_chains_and_links(nft, legacy, links, places):
    assert find_kube_proxy(tables_of(**nft), tables_of(**legacy), links) == places


def test_the_entry_chain_of_kube_proxy_is_listed_first():
    tables = tables_of(ip_nat=["KUBE-EXT-A", "KUBE-SVC-B", "KUBE-SERVICES"], ip_raw=["x"])
    assert [*kube_proxy_chains(tables)] == [
        (ChainTable("ip", "nat"), ["KUBE-SERVICES", "KUBE-EXT-A", "KUBE-SVC-B"])
    ]
