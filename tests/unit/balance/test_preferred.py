"""One endpoint once."""

from userspace_proxy.balance import Balancer, Preferred, RoundRobin

from ..model.samples import ALICE, POD_A, POD_B, POD_C

ALL = (POD_A, POD_B, POD_C)


def test_it_is_picked_once_and_then_it_is_the_turn_as_before():
    balancer = Balancer(ALL)
    then = balancer.strategy
    assert balancer.pick(ALICE, 0.0) == POD_A

    def end():
        balancer.strategy = then

    balancer.strategy = Preferred(POD_A, then, end)
    assert [balancer.pick(ALICE, 0.0) for _ in range(3)] == [POD_A, POD_B, POD_C]
    assert balancer.strategy is then


def test_while_it_may_not_be_picked_others_are():
    ended = []
    preferred = Preferred(POD_B, RoundRobin(), lambda: ended.append(True))
    assert preferred.pick(ALL, skip={POD_B}) == POD_A
    assert preferred.pick((POD_A,)) == POD_A
    assert preferred.pick(()) is None
    assert ended == []
    assert preferred.pick(ALL, skip=set()) == POD_B
    assert ended == [True]
