import pytest

from userspace_proxy.agent.check.firewalls import judge_firewalls
from userspace_proxy.agent.check.kernel import KernelView
from userspace_proxy.steering.others import Chain, Step

PORTS = (17000, 29999)


def firewall(*steps, policy="accept", table="ip filter", kind="filter"):
    chain = Chain(table, "INPUT", kind, "input", policy=policy, steps=steps)
    return {table: {"INPUT": chain}}


def marks(kernel, steering="nftables"):
    return [finding.mark for finding in judge_firewalls(kernel, steering, PORTS)]


@pytest.mark.parametrize(
    ("steps", "mark"),
    [
        pytest.param([], "error", id="nothing-lets-in"),
        pytest.param([Step("accept", "ct status dnat")], "ok", id="translated"),
        pytest.param([Step("accept", "tcp dport 10000-30000")], "ok", id="ports"),
        pytest.param([Step("accept", "tcp dport 20000-30000")], "error", id="some-ports"),
        pytest.param([Step("accept")], "ok", id="everything"),
        pytest.param([Step("", "")], "error", id="counts-only"),
    ],
)
def test_a_policy_of_drop_matters_where_nothing_lets_us_in_before(steps, mark):
    assert marks(KernelView(nft=firewall(*steps, policy="drop"))) == [mark]


def test_to_local_steering_nothing_is_translated():
    kernel = KernelView(nft=firewall(Step("accept", "ct status dnat"), policy="drop"))
    (found,) = judge_firewalls(kernel, "local", PORTS)
    assert (found.mark, found.way_out) == (
        "error",
        "nft insert rule ip filter INPUT socket transparent 1 accept",
    )
    lets_in = firewall(Step("accept", "socket transparent"), policy="drop")
    assert marks(KernelView(nft=lets_in), "local") == ["ok"]
    assert marks(KernelView(nft=lets_in)) == ["error"]


def test_our_own_table_and_chains_that_cannot_drop_are_passed_over():
    ours = firewall(Step("reject"), table="inet userspace-proxy")
    assert marks(KernelView(nft=ours)) == ["ok"]
    assert marks(KernelView(nft=firewall(Step("drop"), kind="nat"))) == ["ok"]


@pytest.mark.parametrize(
    ("table", "way_out"),
    [
        ("ip filter", "nft insert rule ip filter INPUT ct status dnat accept"),
        (
            "legacy ip6 filter",
            "ip6tables-legacy -I INPUT -m conntrack --ctstate DNAT -j ACCEPT; or "
            "--steering=iptables",
        ),
        (
            "inet firewalld",
            "update firewalld to 0.9 or later, which admits translated packets",
        ),
    ],
)
def test_the_way_out_is_in_the_words_of_the_tables_tool(table, way_out):
    chains = firewall(Step("drop"), table=table)
    is_legacy = table.startswith("legacy")
    kernel = KernelView(legacy_filter=chains) if is_legacy else KernelView(nft=chains)
    assert [f.way_out for f in judge_firewalls(kernel, "nftables", PORTS)] == [way_out]


def test_without_steering_nobody_asks():
    assert judge_firewalls(KernelView(nft=firewall(policy="drop")), "none", PORTS) == []
