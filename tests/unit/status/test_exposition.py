import pytest

from userspace_proxy.status.exposition import (
    Buckets,
    counter,
    gauge,
    histogram,
    info,
    label_value,
    labels_text,
    write_families,
)


def text(*families, open_metrics=False):
    return write_families(families, open_metrics=open_metrics).decode()


def test_help_and_type_of_a_counter_include_the_suffix_except_in_openmetrics():
    clients = counter("clients", "Clients since the start", [('{node="a"}', 3)])
    assert text(clients) == (
        "# HELP clients_total Clients since the start\n"
        "# TYPE clients_total counter\n"
        'clients_total{node="a"} 3\n'
    )
    assert text(clients, open_metrics=True) == (
        "# HELP clients Clients since the start\n"
        "# TYPE clients counter\n"
        'clients_total{node="a"} 3\n'
    )


def test_info_is_exposed_as_a_gauge_outside_openmetrics():
    build = info("build", "Version", {"version": "0.1"})
    assert '# TYPE build_info gauge\nbuild_info{version="0.1"} 1\n' in text(build)
    assert '# TYPE build info\nbuild_info{version="0.1"} 1\n' in text(build, open_metrics=True)


@pytest.mark.parametrize(
    ("labels", "inside"),
    [pytest.param("", "", id="alone"), pytest.param('{worker="0"}', 'worker="0",', id="labelled")],
)
def test_the_buckets_of_a_histogram_are_cumulative(labels, inside):
    family = histogram("wait", "Wait", [Buckets(labels, (0.5, 1.0), (4, 2, 1), 3.25)])
    assert text(family).splitlines()[2:] == [
        f'wait_bucket{{{inside}le="0.5"}} 4',
        f'wait_bucket{{{inside}le="1.0"}} 6',
        f'wait_bucket{{{inside}le="+Inf"}} 7',
        f"wait_count{labels} 7",
        f"wait_sum{labels} 3.25",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "1"),
        (12, "12"),
        (0.25, "0.25"),
        (float("inf"), "+Inf"),
        (float("-inf"), "-Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_are_written_in_prometheus_format(value, shown):
    assert text(gauge("level", "Level", [("", value)])).endswith(f"\nlevel {shown}\n")


def test_help_text_is_escaped():
    family = gauge("level", 'a "b"\\\nc', [])
    assert text(family).startswith('# HELP level a "b"\\\\\\nc\n')
    assert text(family, open_metrics=True).startswith('# HELP level a \\"b\\"\\\\\\nc\n')


def test_labels_without_a_value_are_omitted():
    assert labels_text(("a", "b"), ("x", "")) == '{a="x"}'
    assert labels_text(("a",), ("",)) == ""


def test_a_label_value_is_escaped_and_a_lone_surrogate_is_replaced():
    assert label_value('we"b\\\n\ud800é') == 'we\\"b\\\\\\n?é'
