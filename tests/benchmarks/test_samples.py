"""What the figures of the pages are made of: rates, quantiles, and what a way adds."""

from benchmarks.loads import LOADS, with_needed
from benchmarks.open_loop import read_open, slowest_rate
from benchmarks.samples import Sample, Samples

SAMPLES = Samples(
    Sample("open50", way, number, {"p99_us": value})
    for way, values in {"ours": (150.0, 400.0, 210.0), "direct": (50.0, 380.0)}.items()
    for number, value in enumerate(values)
)


def test_what_a_way_adds_is_the_median_of_differences_within_rounds() -> None:
    assert SAMPLES.added("open50", "p99_us", "ours", "direct") == 60.0
    assert SAMPLES.added("open50", "p99_us", "direct", "direct") == 0.0


def test_without_a_common_round_nothing_is_known_to_be_added() -> None:
    assert SAMPLES.added("open50", "p99_us", "ours", "go") is None
    assert SAMPLES.added("open50", "p50_us", "ours", "direct") is None


def keys(*wanted: str) -> list[str]:
    return [load.key for load in with_needed(wanted)]


def test_a_load_is_preceded_by_the_one_whose_figures_it_needs() -> None:
    assert keys("open50", "echo") == ["echo", "keepalive", "open50"]
    assert keys("bulk8") == ["bulk8"]
    assert keys(*LOADS) == list(LOADS)


def test_rates_are_shares_of_the_slowest_proxys_rate_or_of_ours() -> None:
    samples = Samples(
        Sample("keepalive", way, 0, {"requests": rate})
        for way, rate in {"direct": 100.0, "ours": 5000.0, "go": 4000.0}.items()
    )
    rates = {}
    for key in ("open10", "open25", "open50", "open-ours"):
        LOADS[key].prepare(samples)
        rates[key] = LOADS[key]._rate
    assert rates == {"open10": 400.0, "open25": 1000.0, "open50": 2000.0, "open-ours": 2500.0}


REPORT = {
    "count": 2000,
    "seconds": 2.0,
    "errors": 4,
    "p50_us": 61.5,
    "p99_us": 180.0,
    "p999_us": 912.25,
    "max_us": 4000.0,
    "late": 20,
}


def test_a_report_gives_quantiles_and_the_rate_of_answers() -> None:
    assert read_open(REPORT) == {
        "requests": 998.0,
        "p50_us": 61.5,
        "p99_us": 180.0,
        "p999_us": 912.25,
        "errors": 4,
        "late_percent": 1.0,
    }


def test_the_slowest_rate_is_that_of_the_first_round_and_of_ways_that_have_one() -> None:
    samples = Samples(
        [
            Sample("keepalive", "slow", 0, {"requests": 400.0}),
            Sample("keepalive", "fast", 0, {"requests": 900.0}),
            Sample("keepalive", "dead", 0, {}, "it died"),
            Sample("keepalive", "fast", 1, {"requests": 300.0}),
            Sample("keepalive", "dead", 1, {"requests": 200.0}),
            Sample("close", "fast", 0, {"requests": 100.0}),
        ]
    )
    ways = ["slow", "fast", "dead", "absent"]
    assert slowest_rate(samples, "keepalive", "requests", ways) == 400.0
    assert slowest_rate(samples, "keepalive", "requests", ["fast"]) == 900.0
    assert slowest_rate(samples, "keepalive", "requests", ["dead", "absent"]) is None
