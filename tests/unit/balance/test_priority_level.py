import pytest

from userspace_proxy.balance.priority_level import RELIST_S, SHORT, SKIPPED_MAX, PriorityLevel
from userspace_proxy.model import SocketAddress

PODS = tuple(SocketAddress("10.0.0.1", port) for port in range(1, 1001))


def level_of(count, out=()):
    return PriorityLevel(PODS[:count], frozenset(PODS[:count]), out)


def eject(level, endpoints):
    for endpoint in endpoints:
        level.change(endpoint, is_out=True)


def usable(level, now=0.0):
    return [e for e in level.candidates(now) if e not in level.skipped]


def test_all_endpoints_are_candidates_in_the_plans_order_while_few_are_ejected():
    level = level_of(100)
    eject(level, PODS[:SKIPPED_MAX])
    assert level.candidates(0.0) is level.endpoints
    assert usable(level) == list(PODS[SKIPPED_MAX:100])


@pytest.mark.parametrize("count", [100, 1000])
def test_a_bounded_number_of_ejected_endpoints_stays_among_the_candidates(count):
    level = level_of(count)
    for number, pod in enumerate(PODS[:count]):
        level.change(pod, is_out=True)
        assert usable(level) == list(PODS[number + 1 : count])
        assert len(level.skipped) <= max(SKIPPED_MAX, count // 32)
    assert level.is_out


def test_endpoints_ejected_before_the_level_was_built_are_skipped():
    level = level_of(100, set(PODS[:99]))
    assert usable(level) == [PODS[99]]
    assert not level.is_out
    assert level_of(100, set(PODS)).is_out


def test_a_readmitted_endpoint_of_a_short_list_is_a_candidate_immediately():
    level = level_of(1000, set(PODS[: 1001 - SHORT]))
    assert len(level.candidates(0.0)) < SHORT
    for returned in PODS[:2]:
        level.change(returned, is_out=False)
        assert returned in level.candidates(0.0)


def test_readmitted_endpoints_of_a_long_list_are_added_once_a_second():
    level = level_of(1000, set(PODS[:500]))
    for now, returned in ((10.0, PODS[0]), (11.0, PODS[1])):
        level.change(returned, is_out=False)
        assert returned in level.candidates(now)
        level.change(PODS[5], is_out=False)
        assert PODS[5] not in level.candidates(now + 0.9 * RELIST_S)
        level.change(PODS[5], is_out=True)
    assert len(usable(level, 12.0)) == 502


def test_readmitting_all_endpoints_restores_the_plans_order():
    level = level_of(1000)
    eject(level, reversed(PODS))
    for pod in reversed(PODS):
        level.change(pod, is_out=False)
    assert level.candidates(0.0) is level.endpoints


def test_repeating_an_ejection_or_readmission_has_no_effect():
    level = level_of(3)
    level.change(PODS[0], is_out=False)
    eject(level, [PODS[1], PODS[1]])
    assert usable(level) == [PODS[0], PODS[2]]
    assert level.candidates(0.0) is level.endpoints


def test_a_priority_level_without_endpoints_is_unavailable():
    assert level_of(0).is_out
