import re
from dataclasses import replace

from userspace_proxy.facts import Level
from userspace_proxy.status.selection import Selection
from userspace_proxy_kubectl.nodes.agent_answer import AllNodes
from userspace_proxy_kubectl.nodes.dashboard.client_calls import AllCalls
from userspace_proxy_kubectl.nodes.dashboard.map_page import calling_of, render_map

from ..views import QUIET, answer_of, merged_of, web
from .clusters import WEB_1, WEB_3, all_calls, look_at, shown, sick_cluster

LOOK = look_at(sick_cluster())


def the_map(q=""):
    return calling_of(LOOK.merged.ports, all_calls(), q)


def test_the_map_shows_clients_calling_services_and_their_endpoints():
    calling = the_map()
    calls = {(line.start, line.end): line.calls for line in calling.calls}
    assert calls["shop/front-5d9", "shop/web"] == 900
    assert calls["192.0.2.44", "shop/web"] == 5
    serves = {(line.start, line.end): line.level for line in calling.serves}
    assert serves["shop/web", WEB_1] is Level.OK
    assert serves["shop/web", WEB_3] is Level.TROUBLE
    assert serves["shop/cart", "10.244.2.5:8080"] is Level.ATTENTION
    assert serves["shop/quiet", "10.244.1.4:80"] is None


def test_a_client_without_an_answer_has_no_ok_line():
    answered = all_calls().calls[0]
    failed = replace(answered, client="shop/sick", connections=3, failed=3)
    calling = calling_of(LOOK.merged.ports, AllCalls((answered, failed)), "")
    assert [line.level for line in calling.calls] == [Level.OK, None]
    assert calling.calls[1].title == "3 connections, 3 failed"
    silent = merged_of(answer_of("a", web(name=answered.service.partition("/")[2], **QUIET)))
    (line,) = calling_of(silent.ports, AllCalls((answered,)), "").calls
    assert line.level is None


def test_services_with_problems_come_first_followed_by_the_busiest():
    assert [item.name for item in the_map().services] == [
        "shop/search",
        "shop/cart",
        "shop/web",
        "shop/quiet",
    ]


def test_the_busiest_clients_of_all_services_precede_their_second_clients():
    clients = [item.name for item in the_map().clients]
    assert clients[:3] == ["shop/jobs-1", "10.244.1.21", "shop/front-5d9"]


def test_a_search_shows_the_services_of_matching_items():
    for q in ("front-77c", "10.244.3.9", "shop/web"):
        assert [item.name for item in the_map(q).services] == ["shop/web"]
    assert the_map("absent").services == []


def test_items_link_to_their_pages():
    page = shown(render_map(LOOK, all_calls(), Selection(path="/map")))
    assert '<a href="/services/shop/web">' in page
    assert '<a href="/connections?q=shop/front-5d9">' in page
    assert f'<a href="/?q=endpoint:{WEB_1}">' in page
    assert "<title>shop/front-5d9 → shop/web: 900 connections, 0 failed</title>" in page
    assert "5 clients, 4 Services, 7 endpoints" in page


def test_marks_of_the_call_map_differ_in_shape_and_lines_in_class():
    page = shown(render_map(LOOK, all_calls(), Selection(path="/map")))
    marks = re.findall(r'class="mark"[^>]*>(.)<', page)
    assert {"■", "▲", "✖"} == set(marks)
    assert 'class="call trouble"' in page
    assert 'class="call untried"' in page


def test_a_called_but_unlisted_service_is_on_the_map():
    calling = calling_of((), all_calls(), "")
    assert {item.name for item in calling.services} == {"shop/web", "shop/cart", "shop/search"}


def test_the_map_page_states_that_no_connections_were_counted_yet():
    page = shown(render_map(look_at(AllNodes()), AllCalls(), Selection(path="/map")))
    assert "No node has counted a connection yet" in page
    assert '<svg class="map"' not in page


def test_hostile_client_names_are_escaped():
    from .clusters import calls_of, edges

    calls = calls_of({"node-1": edges(("10.0.0.1", "<b>\u202e", "shop/web:http", 1))})
    page = shown(render_map(LOOK, calls, Selection(path="/map")))
    assert "<b>" not in page
    assert "&lt;b&gt;\\u202e" in page
