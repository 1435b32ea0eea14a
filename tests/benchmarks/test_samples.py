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
