from userspace_proxy.model import Handling, Hold, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.denials import NONE, Denials, Dropped, DropReason
from userspace_proxy.plane.messages import REPORT_S

POD = SocketAddress("10.244.0.7", 8080)
LATER = 100.0
RANGES, FORMER, POLICY = DropReason


def admitting(*ranges):
    """Return a Serving with a local endpoint that admits clients in these ranges."""
    return Serving((POD,), outside=(POD,), admits=ranges)


A, B = admitting("192.0.2.0/24"), admitting("198.51.100.0/24")
UNRESTRICTED = Serving((POD,), outside=(POD,))
ONLY_ELSEWHERE = Serving((POD,), outside=(), admits=("10.0.0.0/8",))


def make_denials(serving=A):
    denials = Denials()
    denials.change(serving, 0.0)
    denials.add(2, 5.0)
    denials.add(1, 7.0)
    return denials


def dropped(denials):
    return {reason: drops for reason, drops in denials.by.items() if drops is not NONE}


def test_the_times_of_the_first_and_last_dropped_packet_are_recorded():
    assert dropped(make_denials()) == {RANGES: Dropped(3, 5.0, 7.0)}


def test_a_change_of_ranges_attributes_earlier_drops_to_the_former_ranges():
    denials = make_denials()
    denials.change(B, 10.0)
    assert dropped(denials) == {FORMER: Dropped(3, 5.0, 7.0)}
    denials.add(4, LATER)
    assert dropped(denials) == {RANGES: Dropped(4, LATER, LATER), FORMER: Dropped(3, 5.0, 7.0)}
    denials.change(A, LATER)
    assert dropped(denials) == {FORMER: Dropped(7, 5.0, LATER)}


def test_drops_reported_soon_after_a_change_are_attributed_to_the_former_ranges():
    denials = make_denials()
    denials.change(B, 10.0)
    denials.add(4, 10.0 + REPORT_S / 2)
    # The report was due just after the change, but it was late because the worker was busy.
    denials.add(1, 10.0 + REPORT_S + 2.0)
    assert dropped(denials) == {FORMER: Dropped(8, 5.0, 17.0)}


def test_only_a_change_delays_the_attribution_of_drops_to_the_current_ranges():
    denials = make_denials()
    denials.change(B, 10.0)
    denials.change(B, 12.0)
    denials.add(1, 13.0)
    current = 10.0 + 2 * REPORT_S
    denials.add(1, current)
    assert dropped(denials) == {
        FORMER: Dropped(4, 5.0, 13.0),
        RANGES: Dropped(1, current, current),
    }


def test_drops_reported_before_any_ranges_are_attributed_to_the_ranges():
    denials = Denials()
    denials.change(UNRESTRICTED, 0.0)
    denials.add(1, 1.0)
    assert dropped(denials) == {RANGES: Dropped(1, 1.0, 1.0)}


def test_drops_are_attributed_to_their_ranges_again_when_the_ranges_return():
    for refusing in UNRESTRICTED, Serving(admits=("192.0.2.0/24",)):
        denials = make_denials()
        denials.change(refusing, 10.0)
        denials.change(A, 20.0)
        assert dropped(denials) == {RANGES: Dropped(3, 5.0, 7.0)}


def test_drops_are_attributed_to_the_policy_without_a_local_endpoint():
    assert dropped(make_denials(ONLY_ELSEWHERE)) == {POLICY: Dropped(3, 5.0, 7.0)}
    denials = make_denials(Serving(admits=()))
    assert dropped(denials) == {POLICY: Dropped(3, 5.0, 7.0)}


def test_drops_before_the_loss_of_the_last_local_endpoint_are_attributed_to_the_ranges():
    denials = make_denials()
    denials.change(ONLY_ELSEWHERE, 10.0)
    # This client was dropped by the ranges, before the change.
    denials.add(1, 11.0)
    denials.add(5, LATER)
    # Only the cluster's networks changed, not the ranges.
    denials.change(Serving((POD,), outside=(), admits=("10.0.0.0/9",)), LATER)
    denials.change(A, LATER)
    denials.add(1, LATER + 1.0)
    assert dropped(denials) == {
        RANGES: Dropped(4, 5.0, 11.0),
        POLICY: Dropped(6, LATER, LATER + 1.0),
    }
    denials.add(1, 2 * LATER)
    assert denials.by[RANGES] == Dropped(5, 5.0, 2 * LATER)


def test_drops_are_attributed_to_the_ranges_while_clients_wait_for_an_endpoint():
    waiting = Handling(hold=Hold(30.0))
    denials = make_denials(Serving(admits=A.admits, handling=waiting))
    denials.change(Serving(admits=B.admits, handling=waiting), 10.0)
    denials.add(1, LATER)
    assert dropped(denials) == {RANGES: Dropped(1, LATER, LATER), FORMER: Dropped(3, 5.0, 7.0)}


def test_drops_are_not_attributed_to_the_policy_once_no_node_has_an_endpoint():
    denials = make_denials(ONLY_ELSEWHERE)
    denials.change(Serving(admits=A.admits, handling=Handling(hold=Hold(30.0))), 10.0)
    denials.add(1, LATER)
    assert dropped(denials) == {RANGES: Dropped(1, LATER, LATER), POLICY: Dropped(3, 5.0, 7.0)}
