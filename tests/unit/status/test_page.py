import re
import time

import pytest

from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.causes.say import kubectl_words
from userspace_proxy.causes.slices import selects_no_pod
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import Level, SourceFacts
from userspace_proxy.model import DataPath, Handling, Taken
from userspace_proxy.status.page import (
    ENDPOINTS_SHOWN,
    HEALTH_CHECKS_SHOWN,
    IGNORED_SHOWN,
    INCIDENTS_SHOWN,
    PARTS,
    PORTS_A_PAGE,
    PORTS_SHOWN,
    build_page,
    render_incident,
    render_no_incident,
    render_page,
    render_parts,
)
from userspace_proxy.status.sampling import Sample
from userspace_proxy.status.selection import Selection, row_id
from userspace_proxy.status.timeline import Event

from .recorded import changed
from .views import (
    NOW,
    make_calm_view,
    make_endpoint,
    make_frontend,
    make_health_check,
    make_ignored,
    make_port,
    make_troubled_view,
    make_view,
    replace,
)


def build(view, **selection):
    return build_page(Sample(view, NOW), Selection(**selection))


def render(view, **selection):
    return render_page(Sample(view, NOW), Selection(**selection)).decode()


def endpoints(count, state="ready"):
    return tuple(make_endpoint(f"10.1.0.{n}:80", state, state == "ready") for n in range(count))


def test_the_title_starts_with_the_state():
    assert build(make_calm_view()).title == "OK: node-a, userspace-proxy"
    assert build(make_troubled_view()).title == "Trouble: node-a, userspace-proxy"
    assert build(make_view(node="")).title == "OK: this node, userspace-proxy"


@pytest.mark.parametrize(("unanswered", "mark"), [(0, Level.OK), (71, None)])
def test_the_heading_is_neutral_while_clients_may_be_unanswered(unanswered, mark):
    """A page with 476 failed flows had a green mark, and "1 Service port served"."""
    quiet = {"connections": unanswered, "sent_bytes": 0}
    page = build(make_view(make_port(), make_port("dns", protocol="UDP", **quiet)))
    assert (page.level, page.mark) == (Level.OK, mark)
    assert page.title.startswith("OK: ") is (mark is Level.OK)
    assert ("clients of 1 Service port" in page.verdict) is (mark is None)
    doubt = Taken("x may drop it", "", "ip x", is_certain=False)
    doubted = build(make_view(make_port(perhaps_taken=doubt, refused=unanswered)))
    assert " 1 Service port may lose packets to other programs' rules." in doubted.verdict
    kernel = replace(make_port(refused=unanswered), path=PathView(DataPath.KERNEL))
    assert build(make_view(kernel)).mark is Level.OK


def test_a_page_lists_at_most_a_hundred_service_ports():
    view = make_view(*(make_port(f"web-{n:03}") for n in range(250)))
    assert [len(build(view, page=n).rows) for n in (1, 2, 3)] == [PORTS_A_PAGE, PORTS_A_PAGE, 50]
    assert build(view, page=2).rows[0].service == "web-100"
    assert build(view).part.pages == 3


def test_only_the_first_100_ignored_services_are_shown():
    view = make_view(ignored=tuple(make_ignored(f"a/b{n:03}", "", "why") for n in range(150)))
    assert len(build(view).ignored) == IGNORED_SHOWN
    assert "And 50 more" in render(view)


@pytest.mark.parametrize(
    ("view", "selection", "sentence"),
    [
        pytest.param(make_view(), {}, "kubectl get services --all-namespaces", id="kubernetes"),
        pytest.param(
            make_view(source=SourceFacts("manifests", "web.yaml", is_synced=True)),
            {},
            "Add a Service manifest to <code>web.yaml</code>",
            id="manifests",
        ),
        pytest.param(
            make_view(source=SourceFacts("memory", "", is_synced=True)),
            {},
            "Proxy.add_service()",
            id="memory",
        ),
        pytest.param(
            make_view(source=SourceFacts("kubernetes", "https://k", is_synced=False)),
            {},
            " yet from https://k",
            id="not-synced",
        ),
        pytest.param(make_view(make_port()), {"q": "x"}, "No Service port matches", id="search"),
        pytest.param(make_calm_view(), {"q": "sctp"}, "see what is ignored below", id="ignored"),
    ],
)
def test_an_empty_page_shows_the_next_steps(view, selection, sentence):
    assert sentence in render(view, **selection)


def test_names_and_reasons_are_escaped():
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
        handling=Handling(balance=evil),
    )
    view = make_view(
        port,
        ignored=(make_ignored(evil, evil, evil),),
        health_checks=(make_health_check(evil, 31000, 1), make_health_check(evil, 31001, 1, evil)),
        node=evil,
        version=evil,
        source=SourceFacts(evil, evil, is_synced=True, problems=(evil,)),
    )
    assert "<script>" not in render(view)
    assert "<script>" not in render(view, q=f'"{evil}')
    assert "<script>" not in render(view, open=(row_id(port.plan.key),))


def test_a_secret_in_a_problem_is_hidden():
    problem = "url='http://me:hunter2@proxy:3128'"
    view = make_view(make_port(problem=problem), source=SourceFacts(problems=(problem,)))
    parts = render_parts(build(view))
    assert "[removed]@proxy" in render(view)
    assert "hunter2" not in f"{render(view)} {parts.title} {parts.html}"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1])
def test_impossible_numbers_are_shown_as_unknown(number):
    odd = make_endpoint("a", "ready", True, ejected_for_s=number, connections=number)
    port = make_port("web", endpoints=(odd,), active=number, received_bytes=number)
    assert "unknown" in render(make_view(port, started=number), q="web")


def text_of(html):
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_only_the_first_100_health_checks_are_shown():
    checks = tuple(make_health_check(f"a/b{n:03}", 31000 + n, 1) for n in range(150))
    page = build(make_view(health_checks=checks))
    assert len(page.health_checks) == HEALTH_CHECKS_SHOWN
    assert "And 50 more" in render(make_view(health_checks=checks))


def test_a_single_result_is_expanded_until_collapsed():
    view = make_view(make_port("cart"), make_port("web"))
    key = row_id(view.ports[1].plan.key)
    assert [row.detail is not None for row in build(view).rows] == [False, False]
    assert [row.detail is not None for row in build(view, open=(key,)).rows] == [False, True]
    assert [row.detail is not None for row in build(view, q="web").rows] == [True]
    assert [row.detail is not None for row in build(view, q="web", open=(key,)).rows] == [False]


def test_each_streamed_part_of_the_page_occurs_in_the_whole_page():
    view = make_troubled_view()
    parts = render_parts(build(view, q="cart"))
    whole = render(view, q="cart")
    assert parts.html.keys() == {*PARTS, *parts.rows}
    for name, html in parts.html.items():
        assert html in whole
        assert html.lstrip().split(">")[0].count(f'id="{name}"') == 1


def test_a_page_without_refresh_has_a_search_form_without_scripts():
    text = render(make_view(), refresh=False, q="web")
    assert "http-equiv" not in text
    assert re.search(r'<form id="search"[^>]*[^n]>', text)
    assert 'value="web"' in text


def test_events_are_shown_with_time_and_saved_connections():
    events = (
        Event(NOW - 12, Level.TROUBLE, "10.244.0.3:80 refuses", "shop/web:http (IPv6)", 12, True),
        Event(NOW - 60, Level.OK, "Resolved: all"),
    )
    page = build_page(Sample(make_view(), NOW, events=events), Selection())
    text = text_of(render_parts(page).html["events"])
    at = time.strftime("%H:%M:%S", time.localtime(NOW - 12))
    assert f"{at} shop/web:http (IPv6) 10.244.0.3:80 refuses for 12 s 12 connections saved" in text
    assert "Resolved: all" in text


def make_failing(*names, dead=("10.244.0.9:80",)):
    """Return Service ports with the same failing endpoints."""
    causes = [refuses(at).replace(count=2, first_at=NOW - 9, last_at=NOW - 2) for at in dead]
    failing = tuple(make_endpoint(str(one.get("at")), cause=one) for one in causes)
    return [make_port(name, endpoints=failing) for name in names]


def test_only_the_first_few_shared_causes_are_shown():
    dead = [f"10.244.0.{number}:80" for number in range(INCIDENTS_SHOWN + 3)]
    view = make_view(*make_failing("a", "b", dead=dead))
    assert len(build(view).incidents) == INCIDENTS_SHOWN
    assert "And 3 more causes of several Services." in render(view)


DEAD = refuses("10.244.0.9:8080").replace(count=12, first_at=NOW - 900, last_at=NOW - 2)


def pages_of(*ports):
    """Return the page of each incident."""
    view = make_view(*ports)
    sample = Sample(view, NOW)
    return [render_incident(sample, one.id).decode() for one in Incidents(view).all()]


def test_a_cause_describing_a_state_has_no_count():
    empty = selects_no_pod("shop/a", 1, "app=a", ("pods",))
    (page,) = pages_of(make_port("a", endpoints=(), cause=empty))
    assert "<dt>Seen" not in page
    assert "endpoint</h2>" not in page
    assert f"<code>kubectl {kubectl_words(empty, 'shop/a')}</code>" in page


def test_an_incident_page_is_bounded_and_counts_omitted_rows():
    def gone(number):
        at = f"10.244.{number // 200}.{number % 200 + 1}:80"
        return make_endpoint(at, node="node-7", cause=silent(at))

    ports = [
        make_port(f"web-{number:03}", endpoints=(gone(number),))
        for number in range(PORTS_SHOWN + 7)
    ]
    (page,) = pages_of(*ports)
    assert "<h1>node-7 does not answer: 207 endpoints of 207 Services</h1>" in page
    assert "and 7 more</li>" in page
    assert f"and {PORTS_SHOWN + 7 - ENDPOINTS_SHOWN} more<" in page


def test_names_on_an_incident_page_are_escaped():
    dead = (make_endpoint("10.244.0.9:8080", cause=DEAD),)
    (page,) = pages_of(make_port("<b>evil\ud800", endpoints=dead))
    assert "<b>evil" not in page


def test_a_resolved_incident_has_no_page():
    sample = Sample(make_view(make_port()), NOW)
    assert render_incident(sample, "0123456789ab") is None
    assert b"<h1>This is over</h1>" in render_no_incident(sample)


def test_pages_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "page", "incident") == []
