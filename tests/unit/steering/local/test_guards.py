from __future__ import annotations

from contextlib import closing

import pytest

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.nf_tables import Ruleset
from userspace_proxy.steering import SteeringFacts
from userspace_proxy.steering.local.desired import DesiredState
from userspace_proxy.steering.local.guards import make_guard, missing
from userspace_proxy.steering.local.kernel import RoutingTables


def kind_of_guard(*, own_namespace, uses_nftables=True):
    with closing(RoutingTables()) as tables:
        guard = make_guard(
            tables,
            SteeringFacts(),
            DesiredState(),
            own_namespace=own_namespace,
            uses_nftables=uses_nftables,
        )
        guard.close()
        return type(guard).__name__


@pytest.fixture
def without_nftables(monkeypatch):
    def refuse(_ruleset):
        raise SteeringError("cannot query nftables: Invalid argument")

    monkeypatch.setattr(Ruleset, "generation", refuse)


def test_with_nftables_the_guard_has_a_table(node):
    assert {kind_of_guard(own_namespace=own) for own in (True, False)} == {"NftGuard"}
    assert kind_of_guard(own_namespace=True, uses_nftables=False) == "OpenGuard"
    assert {missing(own_namespace=own) for own in (True, False)} == {""}


def test_without_nftables_only_a_namespace_of_the_proxys_own_is_served(node, without_nftables):
    assert kind_of_guard(own_namespace=True) == "OpenGuard"
    assert missing(own_namespace=True) == ""
    lack = (
        "it needs nftables to keep clients from other daemons' ports on this node: "
        "cannot query nftables: Invalid argument"
    )
    assert missing(own_namespace=False) == lack
    with pytest.raises(SteeringError) as caught:
        kind_of_guard(own_namespace=False)
    assert str(caught.value) == (
        f"cannot steer by local: {lack} "
        "(modprobe nf_tables, or run with --steering=iptables or --steering=none)"
    )
