import pytest

from userspace_proxy.facts.units import bytes_in_words, count_in_words, plural, seconds_in_words
from userspace_proxy.nodes.dashboard.bounded import bounded, cut, writes

HUGE = 10**400


@pytest.mark.parametrize(
    "function", [bytes_in_words, count_in_words, seconds_in_words, lambda n: plural(n, "node")]
)
@pytest.mark.parametrize("number", [HUGE, -HUGE, 1e308, float("nan"), 3])
def test_any_number_can_be_written(function, number):
    assert len(writes(function)(number)) < 60


def test_numbers_within_bounds_are_kept():
    assert (bounded(7), bounded(-1.5)) == (7, -1.5)
    assert writes(plural)(2, "more entry", "more entries") == "2 more entries"


def test_long_texts_are_cut():
    assert cut("a" * 100_000).endswith("a…")
    assert len(cut("a" * 100_000)) < 3_000
    assert cut("short") == "short"
