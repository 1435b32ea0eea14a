"""Tests of the effect of weights and priorities on usable endpoints."""

from userspace_proxy.model import Endpoint
from userspace_proxy.model.serving import Serving
from userspace_proxy.policy import NodeFacts, Scope, count_local_ready

from ..model.samples import POD_A, POD_B, POD_C, TERMINATING, slice_of
from .judging import judge, reasons, usable_ips

A, B, C = POD_A.ip, POD_B.ip, POD_C.ip


def preferring(**fields):
    """Return an endpoint for each value of the fields: ``preferring(weight=(5, 0))``."""
    columns = [[(name, value) for value in values] for name, values in fields.items()]
    return [
        Endpoint(ip, **dict(row))
        for ip, row in zip((A, B, C), zip(*columns, strict=True), strict=False)
    ]


class TestWeights:
    def test_equal_weights_count_as_unweighted(self):
        usable = judge(slice_of(*preferring(weight=(5, 5))))
        assert usable.serving == Serving((POD_A, POD_B))

    def test_an_endpoint_with_weight_0_is_not_usable(self):
        usable = judge(slice_of(*preferring(weight=(0, 5, 5))))
        assert usable_ips(usable) == [B, C]
        assert reasons(usable) == ["drained (weight 0)", "ready", "ready"]
        assert usable.serving.weights == ()

    def test_an_endpoint_with_weight_0_is_not_counted_for_load_balancers(self):
        ready = slice_of(Endpoint(A, node="node-1", weight=0), Endpoint(B, node="node-1"))
        assert count_local_ready([ready], NodeFacts(node_name="node-1")) == 1

    def test_both_sides_of_a_split_have_their_own_weights(self):
        usable = judge(
            slice_of(Endpoint(A, weight=5), Endpoint(B, node="node-1", weight=7)),
            scope=Scope.LOCAL_FROM_OUTSIDE,
            node_name="node-1",
        )
        assert usable.serving.outside == (POD_B,)
        assert usable.serving.weights == ((POD_A, 5), (POD_B, 7))


class TestPriorities:
    def test_endpoints_of_later_priorities_are_usable_as_standbys(self):
        usable = judge(slice_of(*preferring(priority=(1, 0, 2))))
        assert usable.serving.endpoints == (POD_A, POD_B, POD_C)
        assert usable.serving.standbys == ((POD_A, 1), (POD_C, 2))
        assert [v.is_standby for v in usable.verdicts] == [True, False, True]

    def test_the_next_priority_is_used_if_no_endpoint_of_the_first_priority_is_ready(self):
        usable = judge(slice_of(*preferring(priority=(0, 1), ready=(False, True))))
        assert usable.serving == Serving((POD_B,))
        assert [v.is_standby for v in usable.verdicts] == [False, False]

    def test_a_ready_standby_precedes_a_terminating_first_priority_endpoint(self):
        active, standby = Endpoint(A, **TERMINATING), Endpoint(B, priority=1)
        assert usable_ips(judge(slice_of(active, standby))) == [B]

    def test_the_traffic_policy_applies_before_priorities(self):
        usable = judge(
            slice_of(Endpoint(A), Endpoint(B, node="node-1", priority=1)),
            scope=Scope.LOCAL,
            node_name="node-1",
        )
        assert usable.serving == Serving((POD_B,))
