import gzip

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from userspace_proxy.status.metrics import (
    HealthCheckCounts,
    MetricsForm,
    SyncMetrics,
    render_metrics,
)

from .views import make_port, make_troubled_view, make_view


def render(view, *, sync=None, probes=None, accept="", accept_encoding=""):
    taken = [*(sync or SyncMetrics()).families(), *(probes or HealthCheckCounts()).families()]
    return render_metrics(view, taken, form=MetricsForm.accepted(accept, accept_encoding))


def values(page):
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parse(page.body.decode())
        for sample in family.samples
    }


def test_the_metrics_page_parses_without_duplicate_series():
    page = render(make_troubled_view())
    assert page.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    lines = [
        line.rpartition(" ")[0]
        for line in page.body.decode().splitlines()
        if not line.startswith("#")
    ]
    assert len(lines) == len(set(lines)) == len(values(page))


def test_openmetrics_is_served_on_request():
    page = render(make_troubled_view(), accept="application/openmetrics-text; version=1.0.0")
    assert page.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    names = {family.name for family in parse_openmetrics(page.body.decode())}
    assert {"userspace_proxy_connections", "kubeproxy_sync_proxy_rules_duration_seconds"} <= names


def test_sync_rounds_are_counted_in_kube_proxys_buckets():
    sync = SyncMetrics()
    for duration_s in (0.0005, 0.001, 0.0011, 20.0):
        sync.observe(duration_s, is_full=False)
    name = "kubeproxy_sync_proxy_rules_duration_seconds"
    found = values(render(make_view(), sync=sync))
    assert found[f"{name}_bucket", "0.001"] == 2
    assert found[f"{name}_bucket", "0.002"] == 3
    assert found[f"{name}_bucket", "16.384"] == 3
    assert found[f"{name}_bucket", "+Inf"] == found[f"{name}_count",] == 4
    assert found[f"{name}_sum",] == pytest.approx(20.0026)


def test_full_and_partial_sync_rounds_are_counted_separately():
    sync = SyncMetrics()
    sync.observe(0.5, is_full=True)
    sync.observe(0.01, is_full=False)
    sync.observe(0.02, is_full=False)
    found = values(render(make_view(), sync=sync))
    assert found["kubeproxy_sync_full_proxy_rules_duration_seconds_count",] == 1
    assert found["kubeproxy_sync_partial_proxy_rules_duration_seconds_count",] == 2
    assert found["kubeproxy_sync_proxy_rules_duration_seconds_count",] == 3


def test_the_programming_latency_has_kube_proxys_buckets():
    sync = SyncMetrics()
    sync.observe(0.1, is_full=False, programmed_s=(0.2, 42.5, 400.0))
    found = values(render(make_view(), sync=sync))
    name = "kubeproxy_network_programming_duration_seconds"
    bounds = {labels[0] for found_name, *labels in found if found_name == f"{name}_bucket"}
    assert len(bounds) == 2 + 59 + 12 + 7 + 1
    assert found[f"{name}_bucket", "42.0"] == 1
    assert found[f"{name}_bucket", "43.0"] == 2
    assert found[f"{name}_bucket", "300.0"] == 2
    assert found[f"{name}_count",] == 3


def test_figures_taken_for_a_scrape_do_not_change_before_it_is_rendered():
    sync = SyncMetrics()
    taken = sync.families()
    sync.observe(1.0, is_full=True)
    found = values(render_metrics(make_view(), taken))
    assert found["kubeproxy_sync_proxy_rules_duration_seconds_count",] == 0


def test_probe_counters_of_all_status_codes_exist_from_startup():
    probes = HealthCheckCounts()
    probes.count("healthz", 503)
    found = values(render(make_view(), probes=probes))
    assert found["kubeproxy_proxy_healthz_total", "503"] == 1
    assert found["kubeproxy_proxy_healthz_total", "200"] == 0
    assert found["kubeproxy_proxy_livez_total", "200"] == 0


def test_metrics_of_the_process_are_included():
    names = {name for name, *_ in values(render(make_view()))}
    assert {"process_open_fds", "process_resident_memory_bytes", "python_info"} <= names


def test_label_values_with_special_characters_are_preserved():
    strange = 'we"b\\\n{}'
    page = render(make_view(make_port(strange)))
    assert (
        "userspace_proxy_connections_total",
        *sorted(("shop", strange, "http", "TCP", "IPv4")),
    ) in values(page)


def test_the_metrics_are_compressed_for_a_scraper_that_accepts_gzip():
    plain = render(make_troubled_view())
    packed = render(make_troubled_view(), accept_encoding="deflate, gzip;q=0.9")
    assert (packed.headers["Content-Encoding"], "Content-Encoding" in plain.headers) == (
        "gzip",
        False,
    )
    unpacked = gzip.decompress(packed.body)
    assert unpacked.splitlines()[:3] == plain.body.splitlines()[:3]
    assert len(packed.body) < len(unpacked) / 3


def test_a_scrape_grows_only_with_service_ports_that_had_clients():
    idle = {"active": 0, "connections": 0, "received_bytes": 0, "sent_bytes": 0}
    used = [make_port(f"used-{n}") for n in range(500)]
    few = len(render(make_view()).body)
    assert (
        len(render(make_view(*(make_port(f"s-{n}", **idle) for n in range(500)))).body) < few + 50
    )
    packed = render(make_view(*used), accept_encoding="gzip").body
    assert len(packed) < 500 * 100 + few, "a Service port takes over 100 bytes"


def test_equivalent_accept_headers_select_the_same_format():
    forms = {
        MetricsForm.accepted(
            f"application/openmetrics-text; version=1.{n}.0;q=0.{n}", f"gzip, x{n}"
        )
        for n in range(1, 9)
    }
    (form,) = forms
    assert form.is_gzip
    assert form.content_type.startswith("application/openmetrics-text; version=1.0.0;")
    assert MetricsForm.accepted("text/html", "") == MetricsForm.accepted("", "identity")
