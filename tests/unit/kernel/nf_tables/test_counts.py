"""What was counted, from readings of counters that begin again."""

from __future__ import annotations

from userspace_proxy.kernel.nf_tables.counts import Counts
from userspace_proxy.model import Frontend, Protocol

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)


def test_what_a_counter_has_grown_by_is_added():
    counts = Counts()
    for number in (3, 3, 7):
        counts.note(WEB, number)
    counts.note(CART, 0)
    assert counts.totals == {WEB: 7, CART: 0}


def test_a_counter_that_begins_again_adds_all_that_it_has():
    counts = Counts()
    counts.note(WEB, 7)
    # Another program has reset it.
    counts.note(WEB, 2)
    assert counts.totals == {WEB: 9}
    counts.note(CART, 3)
    counts.begin_anew([WEB, DNS])
    counts.note(WEB, 5)
    counts.note(CART, 5)
    assert counts.totals == {WEB: 14, CART: 5}


def test_a_frontend_that_is_gone_begins_at_nothing():
    counts = Counts()
    counts.note(WEB, 7)
    counts.forget([WEB, CART])
    assert counts.totals == {}
    counts.note(WEB, 8)
    assert counts.totals == {WEB: 8}
