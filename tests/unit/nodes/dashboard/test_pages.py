import dataclasses
import re
import time

import pytest

from tests.unit.status.views import NOW, make_ignored, make_port
from userspace_proxy.causes.endpoints import silent
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import has_headless_label
from userspace_proxy.model import Taken
from userspace_proxy.status.selection import Selection
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.dashboard.markup import page_of
from userspace_proxy_kubectl.nodes.dashboard.pages import (
    render_calls,
    render_incident,
    render_incidents,
    render_missing,
    render_node,
    render_nodes,
    render_overview,
    verdict,
)

from ..views import OTHER, POD, QUIET, answer_of, answering, failing, flows, untried, web
from .clusters import (
    all_calls,
    an_answer,
    calm_cluster,
    look_at,
    shown,
    sick_cluster,
    summaries_of,
)

SICK = look_at(sick_cluster())
CALM = look_at(calm_cluster())


def words_of(parts):
    """Return the text of a page without its markup."""
    text = re.sub(r"<(style|script|svg).*?</\1>", "", shown(parts), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def overview(look, **asked):
    return words_of(render_overview(look, Selection(path="/", **asked)))


def names_on(look, **asked):
    """Return the Service ports in the table, in their order."""
    page = shown(render_overview(look, Selection(path="/", **asked)))
    return re.findall(r'<tbody [^>]*class="port.*?title="([^"]+)"', page, re.DOTALL)


def test_the_overview_lists_unhealthy_services_and_unresponsive_nodes():
    page = overview(SICK)
    assert "1 without an answer. 3 of 4 Service ports need attention." in page
    assert "node-4 : the agent has not answered within 5 s" in page
    assert "only node-2 can&#39;t reach 10.244.2.5:8080" in page
    assert names_on(SICK)[1:] == ["shop/search:http", "shop/web:http", "shop/quiet:http"]
    assert "3 of 4 nodes answered" in page


def test_the_verdict_is_served_as_planned_unless_rules_or_delays_make_it_uncertain():
    assert "All have answered. All Services are served as planned." in overview(CALM)
    with_others = dataclasses.replace(CALM.merged, excluded=("windows-1",))
    assert " No agent on windows-1, which the DaemonSet excludes. All" in verdict(with_others)
    some = AllNodes((*calm_cluster(20).answers[4:], sick_cluster().answers[-1]))
    assert verdict(look_at(some).merged).endswith(" are served as planned on the others.")
    doubt = Taken("x may drop it", "", "ip x", is_certain=False)
    for more in (), (web(failing(silent(POD)), name="a"),):
        doubted = answer_of("a", web(answering(), perhaps_taken=doubt), *more)
        said = verdict(look_at(AllNodes((doubted,))).merged)
        assert said.endswith(". 1 Service port may lose packets to other programs' rules.")
    behind = AllNodes((answer_of("a", web(answering()), behind=("shop/web",)),))
    assert verdict(look_at(behind).merged).endswith("No Service is known to fail.")


def test_the_overview_is_shown_before_the_first_response():
    page = overview(look_at(AllNodes()))
    assert "No node has a Service yet." in page


def test_a_search_on_the_overview_lists_only_matching_services():
    page = overview(SICK, q="endpoint:10.244.3.9")
    assert "1 Service port found." in page
    assert names_on(SICK, q="endpoint:10.244.3.9") == ["shop/web:http"]
    assert "No Service port matches absent." in overview(SICK, q="absent")


@pytest.mark.parametrize(
    ("q", "services"),
    [
        pytest.param("is:problem", ["cart", "search", "web"], id="on-some-node"),
        pytest.param("is:not-answering", ["cart", "search"], id="state"),
        pytest.param("ns:shop -web", ["cart", "quiet", "search"], id="all-words"),
    ],
)
def test_the_overview_search_accepts_the_filters_of_the_proxys_page(q, services):
    parts = render_overview(SICK, Selection(path="/", q=q))
    page = shown(parts)
    assert sorted(re.findall(r'href="/services/shop/(\w+)"', page)) == services


def test_an_unknown_state_in_a_search_is_reported():
    assert "there is no state is:refusd" in overview(SICK, q="is:refusd")


def test_the_table_of_services_is_sorted_by_the_selected_column():
    names = sorted(str(port.key) for port in SICK.merged.ports)
    assert names_on(SICK, sort="name") == names
    assert names_on(SICK, sort="-name") == names[::-1]


def test_an_endpoint_that_only_some_nodes_reach_is_drawn_as_half_a_circle():
    answers = (
        answer_of("node-1", web(failing(silent(POD)), untried(OTHER))),
        answer_of("node-2", web(answering(), untried(OTHER))),
    )
    page = shown(render_overview(look_at(AllNodes(answers)), Selection(path="/")))
    dots = '<span class="attention">◑</span><span class="unused">○</span>'
    assert dots in page


def test_the_overview_links_to_a_request_for_services_omitted_by_summaries():
    look = look_at(summaries_of(calm_cluster()))
    parts = render_overview(look, Selection(path="/", q="shop/calm-1"))
    page = shown(parts)
    assert '<a href="/services/shop/calm-1">Ask all nodes about shop/calm-1</a>' in page
    assert "3 more Service ports are served wherever that is known" in words_of(parts)
    assert "Ask all nodes" not in overview(look, q="calm")


def test_the_size_of_a_page_is_bounded():
    ports = [make_port(f"web-{n:04}", refused=7) for n in range(150)]
    first = an_answer("node-0", ports)
    answers = tuple(AgentAnswer(f"node-{n}", first.agents, first.status) for n in range(400))
    look = look_at(AllNodes(answers))
    page = shown(render_overview(look, Selection(path="/")))
    assert len(page) < 150_000
    assert page.count('class="name"') == 100 + 25
    assert "1 to 100 of 150 Service ports" in page
    assert '<a rel="next" href="/?page=2">Next</a>' in page
    assert len(shown(render_nodes(look, Selection(path="/nodes")))) < 150_000


def test_nodes_are_listed_in_a_searchable_table():
    page = words_of(render_nodes(SICK, Selection(path="/nodes", q="node-4")))
    assert "1 node found." in page
    assert "nftables" not in page
    assert "0.1.0" in words_of(render_nodes(SICK, Selection(path="/nodes")))


def test_a_nodes_page_lists_its_problems():
    page = words_of(render_node(SICK, Selection(path="/nodes/node-3"), "node-3"))
    assert "2 Service ports need attention here, of 4" in page
    (status,) = (one.status for one in SICK.all_nodes.answers if one.node == "node-3")
    (search,) = (port for port in status.ports if port.service == "search")
    assert search.state.sentence in page
    assert "kubectl -n kube-system port-forward userspace-proxy-node-3 10249" in page


def test_an_unresponsive_nodes_page_hides_its_earlier_values():
    *others, silent = sick_cluster().answers
    before = an_answer("node-4", [make_port("web")])
    left = dataclasses.replace(before, problem=silent.problem)
    page = words_of(
        render_node(look_at(AllNodes((*others, left))), Selection(path="/nodes/node-4"), "node-4")
    )
    assert "the agent has not answered within 5 s" in page
    assert "nftables" not in page
    assert render_node(SICK, Selection(path="/"), "node-9") is None


def test_each_listed_cause_has_its_own_page():
    parts = render_incidents(SICK, Selection(path="/incidents"))
    page = shown(parts)
    ids = re.findall(r'href="/incidents/([0-9a-f]+)"', page)
    assert len(ids) == len(SICK.merged.incidents) == 3
    for id_ in ids:
        assert "What to do" in words_of(
            render_incident(SICK, Selection(path=f"/incidents/{id_}"), id_)
        )
    assert render_incident(SICK, Selection(path="/"), "0123456789ab") is None
    found = words_of(render_incidents(SICK, Selection(path="/incidents", q="shop/web refuses")))
    assert "1 cause found." in found


def test_clients_are_listed_with_the_services_they_call():
    parts = render_calls(SICK, all_calls(), Selection(path="/connections"))
    page = shown(parts)
    assert '<a href="/services/shop/web">shop/web:http</a>' in page
    said = words_of(parts)
    assert "shop/front-5d9 10.244.1.20" in said
    assert "3 connections of other clients, which nodes don&#39;t list." in said
    found = words_of(render_calls(SICK, all_calls(), Selection(path="/connections", q="192.0.2")))
    assert "1 client of a Service port found." in found


@pytest.mark.parametrize("refresh", [True, False])
def test_pages_reload_without_scripts_unless_refresh_is_off(refresh):
    asked = Selection(path="/", refresh=refresh)
    page = page_of(render_overview(CALM, asked), asked).decode()
    meta = '<noscript><meta http-equiv="refresh" content="5"></noscript>'
    assert (meta in page) is refresh
    # The search field is hidden, because a reload would lose the typed text.
    assert ('role="search" method="get" action="/" hidden' in page) is refresh


def test_the_page_of_a_nonexistent_object_states_the_reason_without_a_mark():
    page = render_missing(CALM, Selection(path="/nodes/x"), "There is no node x")
    assert "There is no node x." in words_of(page)
    assert "served as planned" not in words_of(page)
    assert 'class="icon ok"' not in shown(page)


def test_the_overview_lists_ignored_services_with_their_remedy():
    ignored = make_ignored("shop/b", "", has_headless_label())
    look = look_at(AllNodes((answer_of("a", web(answering()), ignored=[ignored]),)))
    assert f"shop/b all {say(ignored.cause)} {remedy(ignored.cause)}" in overview(look)
    assert "None matches the search" in overview(look, q="web")


def test_the_overview_shows_times_in_local_time():
    shown = time.strftime("%H:%M:%S", time.localtime(NOW))
    assert shown in overview(CALM)


def test_a_service_counts_as_ok_only_on_nodes_where_a_client_was_answered():
    quiet = web(untried(), **QUIET)
    for other in (answer_of("b", quiet), answer_of("b")):
        nodes = AllNodes((answer_of("a", web(answering())), other))
        assert " 1/2 " in overview(look_at(nodes))
    assert " – " in overview(look_at(AllNodes((answer_of("a", quiet), answer_of("b", quiet)))))


def test_a_service_of_unknown_state_has_no_success_colour_and_shows_its_cause():
    quiet = answer_of("a", flows("syslog", unanswered=9), web(untried(), **QUIET, active=0))
    page = shown(render_overview(look_at(AllNodes((quiet,))), Selection(path="/")))
    assert 'class="state "' in page
    assert "not known whether all clients of 1 Service port are answered" in page
    assert (page.count('class="why caused"'), page.count('class="why" colspan=')) == (1, 1)
