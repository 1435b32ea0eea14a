from benchmarks.open_loop import read_open, slowest_rate
from benchmarks.samples import Sample, Samples

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
