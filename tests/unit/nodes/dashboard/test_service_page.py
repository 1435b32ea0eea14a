import html
import re
from dataclasses import replace

from tests.unit.status.views import replace as change_port
from userspace_proxy.causes.endpoints import NO_DATAGRAM_HINT, refuses, silent
from userspace_proxy.causes.slices import none_ready
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.facts import FrontendFacts, Level, Times
from userspace_proxy.facts.last_minute import LastMinuteFacts
from userspace_proxy.model import DataPath
from userspace_proxy.status.selection import Selection
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.dashboard.service_page import (
    ENDPOINTS_SHOWN,
    NODES_SHOWN,
    CellState,
    nodes_of,
    render_service,
)
from userspace_proxy_kubectl.nodes.endpoints import Extent
from userspace_proxy_kubectl.nodes.merged import LATE_HINT, merge
from userspace_proxy_kubectl.nodes.words import format_endpoint

from ..views import (
    OTHER,
    POD,
    QUIET,
    answer_of,
    answering,
    failing,
    flows,
    merged_of,
    untried,
    web,
    without_answer,
)
from .clusters import a_port, all_calls, an_answer, an_endpoint, look_at, shown, sick_cluster
from .test_pages import words_of


def page_of(service, all_nodes=None, **asked):
    look = look_at(all_nodes or sick_cluster())
    part = replace(look, merged=look.merged.of_service(service))
    return render_service(
        part, all_calls(), Selection(path=f"/services/{service}", **asked), service
    )


def rows_of(page):
    """Return the states in the matrix's cells, by node."""
    table = re.search(r'<table class="matrix.*?</table>', shown(page), re.DOTALL)[0]
    found = {}
    for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)[1:]:
        node = re.search(r'href="/nodes/([^"]+)"', row)[1]
        found[node] = [
            words.partition(";")[0].partition(":")[0]
            for words in re.findall(r'class="cell[^>]*title="([^"]*)"', row)
        ]
    return found


def test_an_unhealthy_endpoint_is_shown_as_a_failing_column():
    page = page_of("shop/web")
    assert rows_of(page) == {
        "node-1": ["failing", "answers"],
        "node-2": ["failing", "answers"],
        "node-3": ["failing", "answers"],
        "node-4": ["unknown", "unknown"],
    }
    (head,) = re.findall(r'<th [^>]*class="endpoint failing".*?</th>', shown(page), re.DOTALL)
    assert "10.244.3.9:8080" in head
    assert ">✖<" in head
    assert '<tr role="row" class="failing">' not in shown(page)


def test_an_unhealthy_node_is_shown_as_a_failing_row():
    page = page_of("shop/search")
    assert next(iter(rows_of(page))) == "node-3"
    assert rows_of(page)["node-3"] == ["failing"] * 3
    assert rows_of(page)["node-1"] == ["answers"] * 3
    assert shown(page).count('<tr role="row" class="failing">') == 1
    assert "endpoint failing" not in shown(page)


def test_a_fault_on_a_path_is_shown_as_a_failing_cell_with_text():
    page = page_of("shop/cart")
    assert 'failed dials and clients"' in shown(page)
    assert rows_of(page)["node-2"] == ["failing"]
    assert rows_of(page)["node-1"] == ["answers"]
    (port,) = merge(sick_cluster()).of_service("shop/cart").ports
    (link,) = port.endpoints
    assert link.extent is Extent.PATH
    assert format_endpoint(link) in html.unescape(words_of(page))
    assert "failing" not in re.sub(
        r'"failing"', "", "".join(re.findall(r'class="endpoint[^"]*"', shown(page)))
    )


def test_the_remedy_for_unanswered_clients_is_shown_even_without_a_cause():
    silent_to_all = AllNodes((answer_of("node-1", flows("web", unanswered=9)),))
    (port,) = merge(silent_to_all).ports
    assert port.hint == NO_DATAGRAM_HINT
    page = page_of("shop/web", silent_to_all)
    assert port.hint in html.unescape(words_of(page))
    assert 'class="icon ok"' not in shown(page)
    assert NO_DATAGRAM_HINT not in html.unescape(words_of(page_of("shop/quiet")))


def test_the_remedy_for_unready_endpoints_is_the_command_that_examines_pods():
    unready = untried(state="not ready", is_usable=False)
    port = web(unready, cause=none_ready(1, 0, ("pods", "-n", "shop")))
    of_one = AllNodes((answer_of("node-1", port),))
    (incident,) = merge(of_one).incidents
    assert incident.cause.is_of_pods
    assert incident.command in words_of(page_of("shop/web", of_one))
    late = AllNodes((answer_of("node-1", port, behind=("shop/web",)),))
    assert LATE_HINT in html.unescape(words_of(page_of("shop/web", late)))


def test_the_page_of_a_service_lists_its_addresses_and_clients():
    at = FrontendFacts("192.0.2.1:30080", "NodePort"), FrontendFacts("192.0.2.2:30080", "NodePort")
    of_node = AllNodes((answer_of("node-1", web(answering(), frontends=at)),))
    dialled = "Clients dial any node's address, port 30080 (NodePort); "
    assert dialled in html.unescape(words_of(page_of("shop/web", of_node)))
    said = words_of(page_of("shop/web"))
    assert "shop/front-5d9" in said
    assert "shop/jobs-1" not in said


def test_an_unknown_service_has_no_page():
    assert page_of("shop/none") is None


def test_a_large_matrix_is_truncated_and_counts_omitted_nodes_and_endpoints():
    sick = [an_endpoint(f"10.244.1.{n}:80", silent(f"10.244.1.{n}:80")) for n in range(1, 61)]
    first = an_answer("node-0000", [a_port("web", *sick)])
    all_nodes = AllNodes(
        tuple(AgentAnswer(f"node-{n:04}", first.agents, first.status) for n in range(1000))
    )
    page = page_of("shop/web", all_nodes)
    assert len(shown(page)) < 1_000_000
    rows = rows_of(page)
    assert (len(rows), len(rows["node-0000"])) == (NODES_SHOWN, ENDPOINTS_SHOWN)
    said = words_of(page)
    assert f"{1000 - NODES_SHOWN} more nodes" in said
    assert f"{60 - ENDPOINTS_SHOWN} more endpoints" in said
    found = page_of("shop/web", all_nodes, q="node-0999")
    assert list(rows_of(found)) == ["node-0999"]


def test_failing_nodes_and_endpoints_come_first_in_the_matrix():
    left_out = untried(OTHER, state="not on this node", is_usable=False)
    merged = merged_of(
        answer_of("a", web(answering(OTHER), answering(POD))),
        answer_of("b", web(left_out, failing(silent(POD), active=2))),
        answer_of("c", web(untried(OTHER))),
        without_answer("d"),
    )
    (port,) = merged.ports
    assert [one.address for one in port.endpoints] == [POD, OTHER]
    b, a, c, d = rows = nodes_of(port, merged)
    assert [row.node for row in rows] == ["b", "a", "c", "d"]
    assert a.states == [CellState.SERVED, CellState.SERVED]
    assert b.states == [CellState.FAILING, CellState.NOT_USED]
    assert c.states == [CellState.NOT_USED, CellState.NOT_TRIED]
    assert c.cells[0].says == "not used: not in this node's plan"
    assert d.states == [CellState.UNKNOWN, CellState.UNKNOWN]
    assert (a.mark, d.mark) == (Level.OK, None)
    assert b.cells[0].mark == "✖"
    assert b.cells[1].says.endswith("not on this node")


def test_an_endpoint_that_failed_clients_in_the_last_minute_is_not_shown_as_answering():
    minute = LastMinuteFacts(connections=20, refused=9, cause=refuses(POD))
    troubled = web(answering(OTHER), answering(POD), last_minute=minute)
    merged = merged_of(answer_of("a", troubled), answer_of("b", web(answering(OTHER))))
    (port,) = merged.ports
    a, _ = nodes_of(port, merged)
    assert [one.address for one in port.endpoints] == [POD, OTHER]
    assert a.states == [CellState.AT_TIMES, CellState.SERVED]
    assert not a.is_failing


def test_endpoints_of_the_kernel_path_are_not_shown_as_untried():
    in_kernel = PathView(DataPath.KERNEL, kernel_connections=7)
    port = change_port(web(untried(), name="fast", connections=0), path=in_kernel)
    merged = merged_of(answer_of("a", port))
    (row,) = nodes_of(merged.ports[0], merged)
    assert row.states == [CellState.UNSEEN]
    failing = change_port(port, unanswered=silent(POD), silent_endpoints=1)
    merged = merged_of(answer_of("a", failing))
    assert nodes_of(merged.ports[0], merged)[0].states == [CellState.FAILING]
    said = words_of(page_of("shop/fast", AllNodes((answer_of("a", port),))))
    assert "7 connections to endpoints, 12 open, 0 saved; 0 clients got no answer." in said
    assert "Clients on the kernel path are not listed." in said


def test_the_page_of_a_service_is_ok_only_if_it_is_served_on_all_nodes():
    served = answer_of("a", web(answering(POD)))
    assert "OK." in words_of(page_of("shop/web", AllNodes((served,))))
    late = answer_of("b", web(answering(POD)), behind=("shop/web",))
    for other in (AgentAnswer("b"), answer_of("b", web(name="other")), late):
        words = words_of(page_of("shop/web", AllNodes((served, other))))
        assert "OK on other nodes; not known on b." in words
        assert ("Behind the API server: b." in words) is (other is late)
    silent = web(untried(connections=60), port="smtp", **{**QUIET, "connections": 60})
    mixed = AllNodes((answer_of("a", web(answering(POD)), silent),))
    assert "OK." not in words_of(page_of("shop/web", mixed))


def test_connect_times_are_reported_per_node():
    times = Times((0.001, 0.01), (10, 0, 0), 0.001)
    merged = merged_of(
        answer_of("a", web(answering(), connect_times=times)), answer_of("b", web(answering()))
    )
    (port,) = merged.ports
    connects = [row.connect for row in nodes_of(port, merged)]
    assert connects == ["≤ 1 ms (median), ≤ 1 ms (99 %)", ""]
