from __future__ import annotations

from contextlib import closing

import pytest

from userspace_proxy.steering import SteeringFacts
from userspace_proxy.steering.local.guards import make_guards, missing
from userspace_proxy.steering.local.kernel import RoutingTables


@pytest.mark.parametrize(
    ("own_namespace", "uses_nftables", "expected"),
    [
        pytest.param(False, True, ["NftGuard", "RuleGuard"], id="nftables"),
        pytest.param(False, False, ["RuleGuard"], id="rules"),
        pytest.param(True, False, ["OpenGuard", "RuleGuard"], id="own-namespace"),
    ],
)
def test_the_guard_depends_on_privileges_and_nftables(node, own_namespace, uses_nftables, expected):
    with closing(RoutingTables()) as tables:
        facts = SteeringFacts()
        guards = make_guards(
            tables, facts, own_namespace=own_namespace, uses_nftables=uses_nftables
        )
        assert [type(guard).__name__ for guard in guards] == expected
        for guard in guards:
            guard.close()


def test_with_net_admin_nothing_is_missing(node):
    assert missing() == ""
