from userspace_proxy.plane.denials import NONE, Denials, Dropped
from userspace_proxy.plane.messages import REPORT_S

A, B = ("192.0.2.0/24",), ("198.51.100.0/24",)
LATER = 100.0


def make_denials():
    denials = Denials()
    denials.change(A, 0.0)
    denials.add(2, 5.0)
    denials.add(1, 7.0)
    return denials


def test_the_first_and_the_last_drop_are_known():
    denials = make_denials()
    assert (denials.present, denials.former) == (Dropped(3, 5.0, 7.0), NONE)


def test_a_change_of_the_networks_makes_drops_former_ones():
    denials = make_denials()
    denials.change(B, 10.0)
    assert (denials.present, denials.former) == (NONE, Dropped(3, 5.0, 7.0))
    denials.add(4, LATER)
    assert (denials.present, denials.former) == (Dropped(4, LATER, LATER), Dropped(3, 5.0, 7.0))
    denials.change(A, LATER)
    assert (denials.present, denials.former) == (NONE, Dropped(7, 5.0, LATER))


def test_a_report_soon_after_a_change_is_of_drops_before_it():
    denials = make_denials()
    denials.change(B, 10.0)
    denials.add(4, 10.0 + REPORT_S / 2)
    # It was due just after the change, and the worker was busy.
    denials.add(1, 10.0 + REPORT_S + 2.0)
    assert (denials.present, denials.former) == (NONE, Dropped(8, 5.0, 17.0))


def test_drops_stay_those_of_networks_that_return():
    denials = make_denials()
    denials.change(None, 10.0)
    denials.change(A, 20.0)
    assert (denials.present, denials.former) == (Dropped(3, 5.0, 7.0), NONE)
