from benchmarks.loads import LOADS, with_needed
from benchmarks.samples import Sample, Samples


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
