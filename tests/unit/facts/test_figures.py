import re

import msgspec
import pytest

from userspace_proxy.facts import (
    GAUGES,
    PortFigures,
    Times,
    Traffic,
    TrafficByCause,
    WaitCounts,
    Waits,
    counted_names,
    figures_of,
)
from userspace_proxy.facts.figures import NO_TIMES

EVERY = figures_of(PortFigures)


def test_the_names_of_counted_figures_are_in_the_order_of_declaration():
    assert counted_names(Traffic)[:3] == ("active", "stalled", "connections")
    assert counted_names(PortFigures)[:3] == ("saved", "refused", "denied")
    assert counted_names(WaitCounts) == ("total", "timeouts", "overflows", "client_aborts")


def test_figures_have_the_order_of_the_json_fields():
    names = [*EVERY]
    fields = [name for name in PortFigures.__struct_fields__ if name in EVERY]
    assert [name for name in names if "." not in name] == fields
    assert names[-6:] == [f"waits.{name}" for name in Waits.__struct_fields__ if name != "problem"]


def test_a_figure_describes_its_metric():
    figure = EVERY["connect_times"]
    assert (figure.kind, figure.metric) == ("histogram", "connect_duration_seconds")
    assert (figure.unit, figure.detail, figure.is_rare) == ("seconds", "endpoint", False)
    assert EVERY["waits.client_aborts"].is_rare
    assert EVERY["denied"].detail == "node"


def test_no_metric_is_declared_twice():
    metrics = [figure.metric for figure in EVERY.values()]
    assert len({*metrics}) == len(metrics)


@pytest.mark.parametrize("name", EVERY)
def test_metric_names_end_with_prometheus_units(name):
    figure = EVERY[name]
    assert re.fullmatch(r"[a-z_]+", figure.metric)
    assert figure.help.strip(". ") == figure.help
    if figure.unit in ("bytes", "seconds"):
        assert figure.metric.endswith(f"_{figure.unit}")


def test_the_failed_count_sums_unanswered_and_disconnected_clients():
    ended = {"resets": 2, "empty": 1, "client_aborts": 4, "unanswered_flows": 1}
    waits = Waits(client_aborts=3)
    assert PortFigures(refused=4, failures=9, waits=waits, **ended).failed == 15
    assert TrafficByCause(failures=9, **ended).failed == 17


def test_figures_start_at_zero():
    figures = PortFigures()
    assert (figures.saved, figures.waits, figures.connect_times) == (0, Waits(), NO_TIMES)
    assert msgspec.json.encode(Times((0.1,), (1, 2), 0.5)) == (
        b'{"bounds":[0.1],"counts":[1,2],"seconds":0.5}'
    )


def test_of_all_figures_only_active_and_stalled_are_gauges():
    assert GAUGES == ("active", "stalled")
