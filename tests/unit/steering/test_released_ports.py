"""How long ports stay guarded."""

from __future__ import annotations

from userspace_proxy.steering.released_ports import ReleasedPorts


def test_a_port_is_kept_for_at_least_one_whole_round():
    released = ReleasedPorts()
    released.add([36001])
    assert released.end_round() == set()
    released.add([36002])
    assert sorted(released) == [36001, 36002]
    assert released.end_round() == {36001}
    assert list(released) == [36002]
    assert [released.end_round(), released.end_round()] == [{36002}, set()]


def test_a_port_that_is_released_again_begins_anew():
    released = ReleasedPorts()
    released.add([36001])
    released.end_round()
    released.add([36001])
    assert [released.end_round(), released.end_round()] == [set(), {36001}]
