import re

from benchmarks.report import details_of, page_of, pictures_of
from benchmarks.samples import Sample, Samples
from benchmarks.ways import Ours
from tests.tools.markdown import without_marked

LOST = "failed: the connection was refused"


def open_sample(way: str, number: int, p50: float, p99: float) -> Sample:
    quantiles = {"p50_us": p50, "p99_us": p99, "p999_us": 10 * p99}
    values = {"scheduled": 20_400.0, "requests": 20_399.0, "late_percent": 0.25, "errors": 0.0}
    return Sample("open50", way, number, {**values, **quantiles})


def bars(picture: str) -> list[str]:
    """Return the figures beside the bars."""
    return re.findall(r'class="value"[^>]*>([^<]*)<', picture)


def test_latency_at_a_fixed_rate_is_shown_beside_what_it_adds_to_direct() -> None:
    samples = Samples(
        [
            open_sample("direct", 0, 40, 90),
            open_sample("ours", 0, 90, 190),
            Sample("open50", "go", 0, {}, LOST),
            open_sample("direct", 1, 44, 96),
            open_sample("ours", 1, 104, 216),
            Sample("open50", "go", 1, {}, LOST),
            open_sample("direct", 2, 60, 100),
            Sample("open50", "ours", 2, {}, LOST),
        ]
    )
    details = details_of(samples)
    assert "### Half of the slowest proxy's highest rate: 20,400 requests/s\n" in details
    rows = [line for line in details.splitlines() if "of 3 |" in line or LOST in line]
    assert rows == [
        "| direct to one pod | 44 | 96 | 960 | 0 | 0 | 0 | 0.25 | 0 | 3 of 3 |",
        f"| {Ours.label} | 97 | 203 | 2,030 | 55 | 110 | 1,100 | 0.25 | 0 | 2 of 3 |",
        f"| Go proxy, userspace style | {LOST} |  |  |  |  |  |  |  |  |",
    ]
    assert (
        "|  | 20,400 requests/s, half of the slowest proxy's highest rate |\n"
        "|---|---:|\n"
        "| direct to one pod | 44 / 96 / 960 |\n"
        f"| {Ours.label} | +55 / +110 / +1,100 |\n"
        f"| Go proxy, userspace style | {LOST} |\n"
    ) in page_of(samples)
    assert bars(pictures_of(samples)["latency"]) == ["55", "110"]


def test_a_rate_at_which_no_round_succeeded_has_no_figures() -> None:
    samples = Samples([Sample("open10", "ours", 0, {}, LOST)])
    assert "### A tenth of the slowest proxy's highest rate\n" in details_of(samples)
    assert LOST in page_of(samples)


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
    empty = [part.partition("\n")[0] for part in parts if "\nNot run.\n" in part]
    assert empty == [
        "How fast is it?",
        "How much CPU does it take?",
        "What latency does it add?",
        "How much memory does it take?",
        "What does the client's address cost?",
        "Do acknowledgements wait?",
        "What if an endpoint is silent?",
    ]
    assert details_of(Samples()) == ""


def echo(way: str, rate: float, machine: float, own: float, errors: float = 0) -> Sample:
    values = {"connections": rate, "machine_us": machine, "cpu_us": own, "errors": errors}
    return Sample("echo", way, 0, values)


def test_rates_and_cpu_are_shown_beside_their_ratio_to_haproxy() -> None:
    samples = Samples([echo("ours", 9000, 140, 80, errors=3), echo("haproxy", 10000, 100, 50)])
    page = page_of(samples)
    assert (
        "|  | short connections/s, echo |\n|---|---:|\n"
        f"| {Ours.label} | 9,000 (0.90), 3 errors |\n| HAProxy, one thread | 10,000 (1.00) |\n"
    ) in page
    assert f"| {Ours.label} | 140.0 (80.0) |\n| HAProxy, one thread | 100.0 (50.0) |\n" in page
    assert "9,000" not in without_marked(page)
    assert "140.0" not in without_marked(page)
    pictures = pictures_of(samples)
    assert bars(pictures["rates"]) == ["0.90", "1.00"]
    assert bars(pictures["cpu"]) == ["1.40", "1.00"]


def test_udp_is_compared_with_the_go_proxy() -> None:
    samples = Samples(
        Sample("udp1", way, 0, {"exchanges": rate}) for way, rate in {"ours": 9.0, "go": 10}.items()
    )
    assert bars(pictures_of(samples)["rates"]) == ["0.90", "1.00"]


def test_the_clients_address_is_compared_with_the_nodes() -> None:
    samples = Samples(
        [
            *(echo("ours", 1, 140, 80), echo("ours-node", 1, 125, 70)),
            *(echo("haproxy-client", 1, 130, 60), echo("haproxy", 1, 100, 50)),
        ]
    )
    page = page_of(samples)
    assert "| **userspace-proxy** | 140.0 | 125.0 | 1.12 |\n" in page
    assert "| HAProxy | 130.0 | 100.0 | 1.30 |\n" in page
    assert bars(pictures_of(samples)["client-address"]) == ["1.40", "1.25", "1.30", "1.00"]


def test_memory_is_that_of_the_most_connections() -> None:
    many = {"bytes_each": 1400.0, "descriptors_each": 2.0, "exchanges": 30000.0, "cpu_us": 20.0}
    samples = Samples(
        [
            Sample("held1", "ours", 0, {"base_mb": 80.0}),
            Sample("held8000", "ours", 0, many),
            Sample("held1", "go", 0, {"base_mb": 3.0}),
            Sample("held8000", "go", 0, {}, "would need 48,000 descriptors"),
        ]
    )
    page = page_of(samples)
    assert f"| {Ours.label} | 80.0 | 1,400 | 2.0 | 30,000 | 20.0 |\n" in page
    assert "| Go proxy, userspace style | 3.0 | would need 48,000 descriptors |  |  |  |\n" in page
    assert bars(pictures_of(samples)["memory"]) == ["1,400"]
