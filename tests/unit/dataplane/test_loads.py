import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import Balance, Handling
from userspace_proxy.model.serving import Serving

from .groups import ALICE, CLUSTER, POD_A, POD_B, POD_CLIENT, limited, picks


@pytest.mark.parametrize("balance", [Balance.LEAST_CONNECTIONS, Balance.POWER_OF_TWO_CHOICES])
def test_load_based_strategies_count_connections_and_dials(balance):
    group = EndpointGroup(
        port_key("shop/web"), Serving([POD_A, POD_B], handling=Handling(balance=balance))
    )
    assert group.loads.is_tracked
    group.counters_of(POD_A).active = 1
    group.loads.dial_began(POD_B)
    group.loads.dial_began(POD_B)
    assert (group.loads.of(POD_A), group.loads.of(POD_B)) == (1, 2)
    assert picks(group, 3) == [POD_A] * 3
    group.loads.dial_ended(POD_B)
    group.loads.dial_ended(POD_B)
    assert picks(group, 3) == [POD_B] * 3


def test_a_dial_counts_as_load_until_it_ends_even_if_the_strategy_changes(group):
    by_load = Serving([POD_A, POD_B], handling=Handling(balance=Balance.LEAST_CONNECTIONS))
    group.update(by_load)
    group.loads.dial_began(POD_A)
    group.update(Serving([POD_A, POD_B]))
    group.update(by_load)
    assert group.loads.of(POD_A) == 1
    group.loads.dial_ended(POD_A)
    assert group.loads.of(POD_A) == 0


def test_both_sides_of_a_split_share_the_load_counts(group):
    pods = [POD_A, POD_B]
    group.update(
        Serving(
            pods, outside=pods, inside=CLUSTER, handling=Handling(balance=Balance.LEAST_CONNECTIONS)
        )
    )
    group.loads.dial_began(POD_A)
    assert [picks(group, 1, client)[0] for client in (POD_CLIENT, ALICE)] == [POD_B] * 2


@pytest.mark.parametrize(
    ("limit", "processes", "shares"),
    [
        pytest.param(100, 1, [100], id="one-process"),
        pytest.param(100, 3, [34, 33, 33], id="with-a-rest"),
        pytest.param(2, 3, [1, 1, 1], id="at-least-one"),
    ],
)
def test_worker_processes_share_the_connection_limit_of_an_endpoint(limit, processes, shares):
    groups = [
        EndpointGroup(port_key("shop/web"), limited(limit), start=index, processes=processes)
        for index in range(processes)
    ]
    for group, share in zip(groups, shares, strict=True):
        group.counters_of(POD_A).active = share - 1
        assert not group.loads.is_full(POD_A)
        group.counters_of(POD_A).active = share
        assert group.loads.is_full(POD_A)
