import pytest

from userspace_proxy.facts import Times
from userspace_proxy.facts.units import (
    capitalised,
    count_in_short,
    format_bytes,
    format_count,
    format_ejected,
    format_limit,
    format_rate,
    format_seconds,
    format_times,
    format_waits,
    in_order,
    plural,
)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_220_000_000, "1.2 GB"),
        (5 * 10**21, "5,000 EB"),
        (-1, "unknown"),
        (float("nan"), "unknown"),
    ],
)
def test_bytes_are_formatted_with_decimal_units(count, expected):
    assert format_bytes(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0042, "4 ms"),
        (0.9996, "1 s"),
        (59.7, "1 min"),
        (3600, "1 h"),
        (11_100, "3 h 5 min"),
        (86_400, "1 d"),
        (273_600, "3 d 4 h"),
        (-1, "unknown"),
        (float("inf"), "unknown"),
    ],
)
def test_seconds_are_formatted_with_suitable_units(seconds, expected):
    assert format_seconds(seconds) == expected


def test_counts_have_thousands_separators():
    assert format_count(12_345) == "12,345"
    assert format_count(float("nan")) == format_rate(float("inf")) == "unknown"


def test_only_a_count_of_one_has_a_singular_noun():
    assert [plural(n, "node") for n in (0, 1, 2000)] == ["0 nodes", "1 node", "2,000 nodes"]
    assert plural(2, "more address", "more addresses") == "2 more addresses"


@pytest.mark.parametrize(
    ("rate", "expected"),
    [(0, "0"), (0.04, "0"), (0.33, "0.3"), (9.94, "9.9"), (9.95, "10"), (12_345.6, "12,346")],
)
def test_only_rates_below_ten_have_a_decimal(rate, expected):
    assert format_rate(rate) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (Times(), ""),
        (Times((0.001, 0.01), (0, 0, 0)), ""),
        (Times((0.001, 0.01), (98, 2, 0)), "≤ 1 ms (median), ≤ 10 ms (99 %)"),
        (Times((0.001, 2.0), (1, 1, 2)), "≤ 2 s (median), > 2 s (99 %)"),
        (Times((), (3,)), "unknown (median), unknown (99 %)"),
    ],
)
def test_a_histogram_of_durations_is_formatted_as_median_and_99th_percentile(times, expected):
    assert format_waits(times) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (99_999, "99,999"),
        (99_999.5, "100k"),
        (999_499, "999k"),
        (999_500, "1.0M"),
        (5 * 10**12, "5,000G"),
        (float("inf"), "unknown"),
    ],
)
def test_counts_from_100_000_are_abbreviated(count, expected):
    assert count_in_short(count) == expected


@pytest.mark.parametrize(
    ("count", "last_at", "expected"),
    [
        pytest.param(0, 90.0, "", id="never"),
        pytest.param(1, 0.0, " (once)", id="at-an-unknown-time"),
        pytest.param(1, 98.0, " (once, last 2 s ago)", id="once"),
        pytest.param(1200, 40.0, " (1,200 times, last 1 min ago)", id="often"),
        pytest.param(2, 101.0, " (2 times, last 0 ms ago)", id="by-a-clock-that-is-ahead"),
    ],
)
def test_an_occurrence_count_has_the_age_of_the_last_occurrence(count, last_at, expected):
    assert format_times(count, last_at, 100.0) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("", ""), ("a List", "A List"), ("é", "É"), ("waits: a", "Waits: a")),
        ("shop/web: a", "shop/web: a"),
        ("db.example.com a", "db.example.com a"),
    ],
)
def test_only_the_first_letter_of_a_sentence_is_capitalized(text, expected):
    assert capitalised(text) == expected


def test_an_ejection_is_formatted_with_its_remaining_time():
    assert format_ejected(5.2) == "ejected for 5 s"
    assert format_ejected(0.0) == "ejected until it answers"


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (None, ""),
        (1, " 1 connection per endpoint"),
        (2500, " 2,500 connections per endpoint"),
    ],
)
def test_a_connection_limit_is_shown_as_per_endpoint(most, words):
    assert format_limit(most).removeprefix("at most") == words


def test_names_with_numbers_are_sorted_naturally():
    names = ["node-10", "node-9", "a2b", "node", "a10b", "node-09", "", "9", "node-9x"]
    assert sorted(names, key=in_order) == [
        *("", "9", "a2b", "a10b", "node", "node-9", "node-9x", "node-09", "node-10")
    ]
