from textwrap import dedent

import pytest

from userspace_proxy.steering.others.chains import Step
from userspace_proxy.steering.others.nft import parse_tables, read_step

LISTING = dedent("""\
    table ip nat {
    \tchain KUBE-SERVICES {
    \t}
    \tchain PREROUTING {
    \t\ttype nat hook prerouting priority dstnat; policy accept;
    \t\t counter packets 1 bytes 60 jump KUBE-SERVICES
    \t}
    }
    table inet firewalld {
    \tchain filter_INPUT {
    \t\ttype filter hook input priority filter + 10; policy drop;
    \t\tct status dnat accept
    \t}
    \tchain out {
    \t\ttype nat hook output priority -110; policy accept;
    \t}
    }
    """)


def test_chains_are_read_with_hook_priority_and_policy():
    tables = parse_tables(LISTING)
    assert list(tables) == ["ip nat", "inet firewalld"]
    pre, filter_ = tables["ip nat"]["PREROUTING"], tables["inet firewalld"]["filter_INPUT"]
    assert (pre.kind, pre.hook, pre.priority, pre.policy) == ("nat", "prerouting", -100, "accept")
    assert pre.steps == (Step("jump KUBE-SERVICES"),)
    assert (filter_.hook, filter_.priority, filter_.policy) == ("input", 10, "drop")
    assert tables["inet firewalld"]["out"].priority == -110
    assert tables["ip nat"]["KUBE-SERVICES"].hook == ""


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("ct status dnat counter packets 0 bytes 0 accept", Step("accept", "ct status dnat")),
        ('counter comment "all others" reject with icmpx admin-prohibited', Step("reject")),
        ("tcp dport 22 accept # handle 4", Step("accept", "tcp dport 22")),
        (
            "ct state vmap { invalid : drop, established : accept }",
            Step("drop", "ct state vmap { invalid :"),
        ),
        ("jump zone", Step("jump zone")),
        ('log prefix "dropped" drop', Step("drop")),
    ],
)
def test_a_rule_is_its_condition_and_its_verdict(line, step):
    assert list(read_step(line)) == [step]


def test_what_only_counts_or_marks_is_no_step():
    assert list(read_step("meta mark set 0x1")) == []
