from benchmarks.report import page_of
from benchmarks.samples import Sample, Samples
from benchmarks.ways import Ours

LATE = "not counted: the load generator sent 3.0 % of the requests late"


def open_sample(way: str, number: int, p50: float, p99: float) -> Sample:
    quantiles = {"p50_us": p50, "p99_us": p99, "p999_us": 10 * p99}
    values = {"scheduled": 20_400.0, "requests": 20_399.0, "late_percent": 0.25, "errors": 0.0}
    return Sample("open50", way, number, {**values, **quantiles})


def test_latency_at_a_fixed_rate_is_shown_beside_what_it_adds_to_direct() -> None:
    samples = Samples(
        [
            open_sample("direct", 0, 40, 90),
            open_sample("ours", 0, 90, 190),
            Sample("open50", "go", 0, {}, LATE),
            open_sample("direct", 1, 44, 96),
            open_sample("ours", 1, 104, 216),
            Sample("open50", "go", 1, {}, LATE),
            open_sample("direct", 2, 60, 100),
            Sample("open50", "ours", 2, {}, LATE),
        ]
    )
    page = page_of(samples)
    assert "### Half of the slowest proxy's highest rate: 20,400 requests/s\n" in page
    rows = [line for line in page.splitlines() if "of 3 |" in line or LATE in line]
    assert rows == [
        "| direct to one pod | 44 | 96 | 960 | 0 | 0 | 0 | 0.25 | 0 | 3 of 3 |",
        f"| {Ours.label} | 97 | 203 | 2,030 | 55 | 110 | 1,100 | 0.25 | 0 | 2 of 3 |",
        f"| Go proxy, userspace style | {LATE} |  |  |  |  |  |  |  |  |",
    ]


def test_a_rate_at_which_no_round_counted_has_no_figures() -> None:
    page = page_of(Samples([Sample("open10", "ours", 0, {}, LATE)]))
    assert "### A tenth of the slowest proxy's highest rate\n" in page
    assert LATE in page


def test_what_a_delayed_ack_costs_is_a_column_with_and_without_nodelay() -> None:
    samples = Samples(
        [
            Sample("banner", "direct", 0, {"p50_ms": 0.2, "p99_ms": 0.31}),
            Sample("banner-nagle", "direct", 0, {"p50_ms": 0.21, "p99_ms": 0.32}),
            Sample("banner", "ours", 0, {"p50_ms": 204.1, "p99_ms": 208}),
            Sample("banner-nagle", "ours", 0, {}, "failed: 3 exchanges had no answer"),
        ]
    )
    page = page_of(samples)
    assert (
        "### p50, ms\n\n"
        "|  | server speaks first | server speaks first, no TCP_NODELAY |\n"
        "|---|---:|---:|\n"
        "| direct to one pod | 0.20 | 0.21 |\n"
        f"| {Ours.label} | 204.10 | failed: 3 exchanges had no answer |\n"
    ) in page
    assert "| direct to one pod | 0.31 | 0.32 |\n" in page


def test_loads_that_did_not_run_have_no_tables() -> None:
    parts = page_of(Samples()).split("\n## ")
    empty = [part.partition("\n")[0] for part in parts if part.rstrip().endswith("\nNot run.")]
    assert empty == [
        "Latency at fixed rates",
        "Delayed acknowledgements",
        "Many connections",
        "A silent endpoint",
    ]
