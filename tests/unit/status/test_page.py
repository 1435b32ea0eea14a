import re

import pytest

from userspace_proxy.status.page import (
    ENDPOINTS_SHOWN,
    HEALTH_CHECKS_SHOWN,
    IGNORED_SHOWN,
    PORTS_A_PAGE,
    TROUBLE_SHOWN,
    build_page,
    render_page,
)
from userspace_proxy.status.problems import Level
from userspace_proxy.status.selection import Selection
from userspace_proxy.status.view import SourceView

from .views import (
    NOW,
    make_calm_view,
    make_endpoint,
    make_frontend,
    make_health_check,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
)


def build(view, **selection):
    return build_page(view, now=NOW, selection=Selection(**selection))


def render(view, **selection):
    return render_page(view, now=NOW, selection=Selection(**selection)).decode()


def endpoints(count, state="ready"):
    return tuple(make_endpoint(f"10.1.0.{n}:80", state, state == "ready") for n in range(count))


def test_the_title_begins_with_the_state():
    assert build(make_calm_view()).title == "OK: node-a, userspace-proxy"
    assert build(make_troubled_view()).title == "Trouble: node-a, userspace-proxy"
    assert build(make_view(node="")).title == "OK: this node, userspace-proxy"


@pytest.mark.parametrize(
    ("endpoint", "level", "words"),
    [
        pytest.param(make_endpoint("a", "ready", True), Level.OK, "ready", id="ready"),
        pytest.param(make_endpoint("a", "ready", False), Level.OK, "ready, not used", id="policy"),
        pytest.param(
            make_endpoint("a", "not on this node", False),
            Level.OK,
            "not on this node",
            id="elsewhere",
        ),
        pytest.param(
            make_endpoint("a", "not ready", False), Level.ATTENTION, "not ready", id="not-ready"
        ),
        pytest.param(
            make_endpoint("a", "terminating", True),
            Level.ATTENTION,
            "terminating, still serving",
            id="terminating-but-serving",
        ),
        pytest.param(
            make_endpoint("a", "ready", True, ejected_for_s=12.4),
            Level.TROUBLE,
            "ejected for 12 s",
            id="ejected",
        ),
        pytest.param(
            make_endpoint("a", "not ready", False, ejected_for_s=12.4),
            Level.ATTENTION,
            "not ready",
            id="gone-while-ejected",
        ),
    ],
)
def test_an_endpoint_shows_its_state(endpoint, level, words):
    (block,) = build(make_view(make_port(endpoints=(endpoint,)))).blocks
    assert [(row.level, row.state) for row in block.endpoints] == [(level, words)]


def test_a_hundred_service_ports_a_page():
    view = make_view(*(make_port(f"web-{n:03}") for n in range(250)))
    assert [len(build(view, page=n).blocks) for n in (1, 2, 3)] == [PORTS_A_PAGE, PORTS_A_PAGE, 50]
    assert build(view, page=2).blocks[0].port.plan.key.name.name == "web-100"
    assert build(view).pages == 3


def test_a_page_past_the_end_is_the_last_one():
    view = make_view(*(make_port(f"web-{n:03}") for n in range(150)))
    page = build(view, page=999_999)
    assert page.page == 2
    assert len(page.blocks) == 50


def test_a_cluster_of_ten_thousand_services_makes_a_small_page():
    many = endpoints(100)
    view = make_view(*(make_port(f"web-{n:05}", endpoints=many) for n in range(10_000)))
    assert len(render_page(view, now=NOW, selection=Selection())) < 3_000_000


def test_hidden_endpoints_are_counted_and_failing_ones_are_first():
    many = (*endpoints(30), *endpoints(1, "not ready"))
    block = build(make_view(make_port("web", endpoints=many), make_port("cart"))).blocks[1]
    assert len(block.endpoints) == ENDPOINTS_SHOWN
    assert block.endpoints[0].state == "not ready"
    assert block.more_endpoints == "11 more endpoints, all ready"


def test_a_single_service_port_shows_all_its_endpoints():
    (block,) = build(make_view(make_port(endpoints=endpoints(300)))).blocks
    assert len(block.endpoints) == 300
    assert block.more_endpoints == ""


def test_many_frontends_are_cut_and_counted():
    frontends = tuple(make_frontend(f"192.0.2.{n}:80", "NodePort", "there") for n in range(50))
    (block,) = build(make_view(make_port(frontends=frontends))).blocks
    assert (len(block.frontends), block.more_frontends) == (20, 30)


def test_many_failing_services_are_cut_with_a_link_to_all():
    view = make_view(*(make_port(f"w{n}", endpoints=(), reason="none") for n in range(40)))
    assert len(build(view).problems) == TROUBLE_SHOWN
    assert "Show all 40 Service ports that need attention" in render(view)


def test_many_ignored_services_are_cut_and_counted():
    view = make_view(ignored=tuple(make_ignored(f"a/b{n:03}", "", "why") for n in range(150)))
    assert len(build(view).ignored) == IGNORED_SHOWN
    assert "And 50 more" in render(view)


def test_the_sums_include_service_ports_of_other_pages():
    page = build(make_view(make_port("a"), make_port("b")), q="a")
    assert (page.traffic.active, page.traffic.connections) == (24, 72_814)


@pytest.mark.parametrize(
    ("view", "selection", "sentence"),
    [
        pytest.param(make_view(), {}, "kubectl get services --all-namespaces", id="kubernetes"),
        pytest.param(
            make_view(source=SourceView("manifests", "web.yaml", is_synced=True)),
            {},
            "Add a Service manifest to <code>web.yaml</code>",
            id="manifests",
        ),
        pytest.param(
            make_view(source=SourceView("memory", "", is_synced=True)),
            {},
            "Proxy.add_service()",
            id="memory",
        ),
        pytest.param(
            make_view(source=SourceView("kubernetes", "https://k", is_synced=False)),
            {},
            "Services have not been read yet from https://k",
            id="not-synced",
        ),
        pytest.param(make_view(make_port()), {"q": "x"}, "No Service port matches", id="filter"),
        pytest.param(
            make_view(make_port(endpoints=(), reason="it has no endpoints")),
            {},
            "does its selector match a pod?",
            id="no-endpoints",
        ),
    ],
)
def test_an_empty_page_shows_the_next_steps(view, selection, sentence):
    assert sentence in render(view, **selection)


def test_names_and_reasons_are_never_markup():
    evil = "<script>alert(1)</script>"
    port = make_port(
        evil,
        namespace=evil,
        port=evil,
        reason=evil,
        notes=(evil,),
        problem=evil,
        frontends=(make_frontend(evil, evil, evil),),
        endpoints=(make_endpoint(evil, evil, False, evil),),
        side=evil,
        admits=(evil,),
        balance=evil,
    )
    view = make_view(
        port,
        ignored=(make_ignored(evil, evil, evil),),
        health_checks=(make_health_check(evil, 31000, 1), make_health_check(evil, 31001, 1, evil)),
        node=evil,
        version=evil,
        source=SourceView(evil, evil, is_synced=True, problems=(evil,)),
    )
    assert "<script>" not in render(view)
    assert "<script>" not in render(view, q=f'"{evil}')


def test_names_that_utf8_cannot_hold_do_not_stop_the_page():
    assert "shop/" in render(make_view(make_port("\ud800")))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1])
def test_impossible_numbers_do_not_stop_the_page(number):
    odd = make_endpoint("a", "ready", True, ejected_for_s=number, connections=number)
    port = make_port(endpoints=(odd,), active=number, received_bytes=number)
    assert "unknown" in render(make_view(port, started=number))


def test_workers_are_shown_with_their_process_and_restarts():
    text = render(make_troubled_view())
    rows = [" ".join(row.split()) for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL)]
    first, second = (re.sub(r"<[^>]+>", " ", row).split() for row in rows if ">Worker " in row)
    assert first == ["Worker", "0", "pid", "4711", "1,204", "310", "2"]
    assert second == ["Worker", "1", "not", "running", "0", "0", "3", "(1", "hung)"]


def test_without_worker_processes_there_is_no_table_of_workers():
    assert "Workers" not in render(make_view(make_port()))


def test_refreshing_can_be_paused():
    assert 'http-equiv="refresh" content="5"' in render(make_view())
    assert 'http-equiv="refresh"' not in render(make_view(), refresh=False)
    assert "<script" not in render(make_view(), refresh=False)


@pytest.mark.parametrize("q", ["", "shop"])
def test_only_a_page_without_refresh_has_an_input_field(q):
    assert "<input" not in render(make_view(), q=q)
    assert '<input id="q"' in render(make_view(), q=q, refresh=False)


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_a_port_that_drops_shows_which_clients_and_which_are_admitted():
    text = text_of(render(make_view(*make_two_sides())))
    assert "Clients from outside are dropped here: 2 endpoints: 2 not on this node" in text
    assert "Traffic policy: from outside: only this node&#39;s endpoints" in text
    assert "Admits: 10.244.0.0/16, 127.0.0.0/8; others are dropped" in text
    assert "external addresses" in text
    assert "least-connections" in text


def test_many_networks_are_cut_and_counted():
    many = tuple(f"192.0.2.{n}/32" for n in range(20))
    (block,) = build(make_view(make_port(admits=many))).blocks
    assert block.admits.endswith("192.0.2.7/32 and 12 more networks")


def test_health_check_node_ports_are_shown_with_their_response():
    text = text_of(render(make_calm_view()))
    assert "shop/checkout load balancers avoid this node 31044 0" in text
    assert "shop/shop-front load balancers may use this node 31080 2" in text


def test_a_health_check_with_a_problem_is_first():
    checks = (make_health_check("a/a", 31000, 1), make_health_check("b/b", 31001, 1, "in use"))
    page = build(make_view(health_checks=checks))
    assert [str(view.check.service) for view in page.health_checks] == ["b/b", "a/a"]


def test_many_health_checks_are_cut_and_counted():
    checks = tuple(make_health_check(f"a/b{n:03}", 31000 + n, 1) for n in range(150))
    page = build(make_view(health_checks=checks))
    assert len(page.health_checks) == HEALTH_CHECKS_SHOWN
    assert "And 50 more" in render(make_view(health_checks=checks))


def test_without_health_checks_there_is_no_table_of_them():
    assert "Health check" not in render(make_view(make_port()))
