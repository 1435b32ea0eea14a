"""The names that separate proxies in the kernel."""

import pytest

from userspace_proxy.filters.chains import ChainTable
from userspace_proxy.steering.iptables.rules import OUT, PRE, TCP, UDP
from userspace_proxy.steering.names import (
    REPLY_TABLES,
    STEERING_TABLES,
    ChainNames,
    OwnTable,
    is_own_table,
    label_of,
    proxy_label,
    read_own_table,
)

LONGEST = "UPROXY-GUARD"
OF_THE_TREE = "UPROXY-Od3f9a"
OF_RANGES = "UPROXY-Q0a3f9"
# The kernel's XT_EXTENSION_MAXNAMELEN, without the NUL.
KERNEL_MAX = 28
NAMES = ["canary", "a.b_c-D", "x" * 15, "x" * 16, "x" * 63, "-", "UPROXY-PRE", "kube/proxy", "café"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("", "", id="none"),
        pytest.param("canary", "canary", id="short"),
        pytest.param("a-name-of-15-ch", "a-name-of-15-ch", id="just-short-enough"),
        pytest.param("a-name-of-16-chr", "a-name~8e5a536d", id="too-long"),
        pytest.param("kube/proxy", "kube_p~3b182fa2", id="invalid-kubernetes-name"),
    ],
)
def test_labels_are_derived_from_proxy_names(name, expected):
    assert proxy_label(name) == expected


def test_names_with_the_same_prefix_have_different_labels():
    assert proxy_label("the-same-beginning-1") != proxy_label("the-same-beginning-2")


@pytest.mark.parametrize("name", ["", *NAMES])
def test_chain_names_round_trip_through_the_kernels_names(name):
    names = ChainNames(name)
    for chain in (PRE, OUT, TCP, UDP, LONGEST, OF_THE_TREE, OF_RANGES):
        in_kernel = names.in_kernel(chain)
        assert len(in_kernel) <= KERNEL_MAX
        assert in_kernel.isascii()
        assert names.known(in_kernel) == chain
        assert label_of(in_kernel) == names.label


@pytest.mark.parametrize("name", ["", "canary", "PRE"])
@pytest.mark.parametrize("other", ["", "canary", "PRE", "canary-2"])
@pytest.mark.parametrize("chain", ["UPROXY-PRE", OF_THE_TREE])
def test_only_the_proxys_own_chains_are_recognized_as_own(name, other, chain):
    seen = ChainNames(name).known(ChainNames(other).in_kernel(chain))
    assert seen.startswith("UPROXY-") is (name == other)


@pytest.mark.parametrize("name", ["", "canary"])
@pytest.mark.parametrize("chain", ["PREROUTING", "ACCEPT", "KUBE-SERVICES", "REJECT", ""])
def test_chain_names_of_other_programs_are_unchanged(name, chain):
    names = ChainNames(name)
    assert (names.in_kernel(chain), names.known(chain)) == (chain, chain)
    assert label_of(chain) is None


@pytest.mark.parametrize(
    ("name", "table"),
    [
        pytest.param("", "userspace-proxy", id="none"),
        pytest.param("canary", "userspace-proxy-canary", id="short"),
        pytest.param("a-name-of-16-chr", "userspace-proxy-a-name/8e5a536d", id="too-long"),
    ],
)
def test_table_names_are_derived_from_proxy_names(name, table):
    assert STEERING_TABLES.of(name) == table


@pytest.mark.parametrize("name", ["", *NAMES])
def test_a_tables_name_contains_the_proxys_label(name):
    assert STEERING_TABLES.label_in(STEERING_TABLES.of(name)) == proxy_label(name)
    assert REPLY_TABLES.label_in(REPLY_TABLES.of(name)) == proxy_label(name)


@pytest.mark.parametrize("name", ["", "answers", *NAMES])
def test_reply_tables_and_steering_tables_are_distinguished(name):
    assert STEERING_TABLES.label_in(REPLY_TABLES.of(name)) is None
    assert REPLY_TABLES.label_in(STEERING_TABLES.of(name)) is None


@pytest.mark.parametrize(
    "table", ["filter", "kube-proxy", "userspace-proxy2", "userspace-proxy-", "userspace-proxy-a b"]
)
def test_tables_of_other_programs_belong_to_no_proxy(table):
    assert STEERING_TABLES.label_in(table) is None


@pytest.mark.parametrize("name", ["", *NAMES])
@pytest.mark.parametrize("kind", ["", "replies", "new"])
def test_a_table_name_round_trips(name, kind):
    table = OwnTable(kind, proxy_label(name))
    assert read_own_table(table.name) == table


@pytest.mark.parametrize(
    ("table", "is_own"),
    [
        pytest.param(ChainTable("inet", "userspace-proxy"), True, id="of-steering"),
        pytest.param(ChainTable("bridge", "userspace-proxy/replies-canary"), True, id="of-bridges"),
        pytest.param(ChainTable("inet", "userspace-proxy/new"), True, id="of-another-version"),
        pytest.param(ChainTable("inet", "userspace-proxy2"), False, id="of-another-program"),
        pytest.param(ChainTable("ip", "userspace-proxy"), False, id="of-an-unused-family"),
        pytest.param(ChainTable("inet", "userspace-proxy", is_legacy=True), False, id="legacy"),
    ],
)
def test_a_table_is_recognized_as_own_by_family_and_name(table, is_own):
    assert is_own_table(table) == is_own
