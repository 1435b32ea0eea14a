import json

import msgspec
import pytest

from tests.unit.nodes.views import all_of, answer_of, answering, web
from tests.unit.status.views import NOW
from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.errors import SourceError
from userspace_proxy.facts import Level
from userspace_proxy.facts.encoding import encode_answer
from userspace_proxy.status.selection import Selection
from userspace_proxy_kubectl.nodes.agent_answer import AllNodes
from userspace_proxy_kubectl.nodes.dashboard.lately import Minute
from userspace_proxy_kubectl.nodes.dashboard.live import CALLS_OF_NODES_MAX, Live
from userspace_proxy_kubectl.nodes.dashboard.pages import render_overview

from .clusters import CALLS, calm_cluster, edges, shown, sick_cluster, summaries_of


class Cluster:
    """Nodes with replaceable responses; records the requests sent to them."""

    def __init__(self, all_nodes, answers=CALLS):
        self.now, self.answers = all_nodes, answers
        self.asked, self.seconds = [], 0.0
        self.live = Live(lambda: self.now, self._ask, unix=lambda: NOW, clock=lambda: self.seconds)

    async def _ask(self, path, nodes):
        self.asked.append((path, tuple(nodes)))
        answers = self.answers(path) if callable(self.answers) else self.answers
        return {node: answers[node] for node in nodes if node in answers}


async def test_the_dashboard_merges_unchanged_responses_once():
    cluster = Cluster(sick_cluster())
    look = await cluster.live.look()
    assert look.merged.level is Level.TROUBLE
    assert (await cluster.live.look()).merged is look.merged


async def test_new_responses_are_merged_after_a_delay():
    cluster = Cluster(sick_cluster())
    before = await cluster.live.look()
    cluster.now = calm_cluster()
    assert (await cluster.live.look()).merged is before.merged
    cluster.seconds += 60
    assert (await cluster.live.look()).merged.level is Level.OK


async def test_the_last_minute_contains_the_growth_between_responses():
    def counted(passed, **counts):
        facts = web(answering(), connections=9, **counts)
        return all_of(answer_of("n", facts, now=NOW + passed, started=NOW - 1000))

    cluster = Cluster(counted(0, refused=3))
    assert (await cluster.live.look()).lately.minute() == Minute()
    last = {"refused": 5, "saved": 1}
    for passed, counts in ((4, {"refused": 3}), (8, last), (20, last)):
        cluster.seconds, cluster.now = passed, counted(passed, **counts)
        look = await cluster.live.look()
    (port,) = look.merged.ports
    for key in (None, port.key):
        minute = look.lately.minute(key)
        assert minute.words == "2 failed, 1 saved"
        assert minute.picture.failed
        assert minute.picture.saved
    page = shown(render_overview(look, Selection(path="/")))
    assert page.count("2 failed, 1 saved") == 3


async def test_the_oldest_of_many_cached_service_responses_is_requested_again():
    cluster = Cluster(summaries_of(calm_cluster(1)), {})
    for number in (*range(20), 19, 0):
        await cluster.live.look_at(f"shop/calm-{number}")
    assert len(cluster.asked) == 21


async def test_client_tables_are_queried_at_most_once_in_a_few_seconds():
    cluster = Cluster(sick_cluster())
    for _ in range(3):
        assert len((await cluster.live.calls()).calls) == 6
    assert cluster.asked == [("/api/v1/connections", ("node-1", "node-2", "node-3"))]
    cluster.seconds += 60
    await cluster.live.calls("shop/web")
    assert cluster.asked[1:] == [
        ("/api/v1/connections?service=shop%2Fweb", ("node-1", "node-2", "node-3"))
    ]


async def test_pages_are_shown_although_requests_for_details_are_forbidden():
    cluster = Cluster(summaries_of(sick_cluster()), refuse)
    assert (await cluster.live.calls()).calls == ()
    assert len((await cluster.live.look_at("shop/cart")).merged.ports) == 1


def refuse(_path):
    raise SourceError("no rights")


async def test_client_tables_are_not_queried_before_a_nodes_first_status():
    cluster = Cluster(AllNodes())
    assert (await cluster.live.calls()).calls == ()
    assert cluster.asked == []


async def test_client_tables_are_queried_from_a_limited_number_of_nodes():
    cluster = Cluster(calm_cluster(CALLS_OF_NODES_MAX + 20))
    await cluster.live.calls()
    ((_, nodes),) = cluster.asked
    assert len(nodes) == CALLS_OF_NODES_MAX


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="no-json"),
        pytest.param(b'{"edges": 7}', id="another-type"),
        pytest.param(b'{"edges": [{"connections": 1e999}]}', id="no-number"),
        pytest.param(b"\xff", id="no-text"),
        pytest.param(as_read(CauseCode.SOURCE_AWAY, "gone"), id="none-with-a-cause"),
    ],
)
async def test_an_unreadable_client_table_is_omitted(answer):
    calls = await Cluster(sick_cluster(), {**CALLS, "node-2": answer}).live.calls()
    assert {one.client for one in calls.calls} == {"shop/front-5d9", "10.244.1.21", "shop/jobs-1"}


async def test_a_client_table_with_out_of_range_values_is_omitted():
    huge = json.loads(edges(("10.0.0.1", "", "shop/web", 10**300)))
    huge["edges"][0]["last_at"] = 1e300
    calls = await Cluster(calm_cluster(1), {"node-1": json.dumps(huge).encode()}).live.calls()
    assert calls.calls == ()


async def test_a_services_page_requests_complete_responses_in_place_of_summaries():
    whole = {one.node: one.status for one in sick_cluster().answers if one.status is not None}
    parts = {node: encode_answer(facts) for node, facts in whole.items()}
    cluster = Cluster(summaries_of(sick_cluster()), lambda _: parts)
    (listed,) = (await cluster.live.look()).merged.of_service("shop/cart").ports
    assert set(listed.members) == {"node-2"}
    look = await cluster.live.look_at("shop/cart")
    (port,) = look.merged.ports
    assert set(port.members) == {"node-1", "node-2", "node-3"}
    assert cluster.asked[0][0] == "/api/v1/status?service=shop%2Fcart"


async def test_a_services_page_shows_both_sides_of_a_port():
    (one, *_others) = calm_cluster(1).answers
    (port, *_) = one.status.ports
    sides = [port, msgspec.structs.replace(port, side="external")]
    name = f"{port.namespace}/{port.service}"
    parts = {one.node: encode_answer(msgspec.structs.replace(one.status, ports=sides))}
    look = await Cluster(summaries_of(calm_cluster(1)), lambda _: parts).live.look_at(name)
    assert len(look.merged.ports) == 2


async def test_a_newer_summary_overrides_an_earlier_complete_response():
    whole = {one.node: one.status for one in sick_cluster().answers if one.status is not None}
    parts = {node: encode_answer(facts) for node, facts in whole.items()}
    cluster = Cluster(summaries_of(sick_cluster()), lambda _: parts)
    await cluster.live.look_at("shop/cart")
    cluster.now, cluster.seconds = summaries_of(calm_cluster()), 3.0
    look = await cluster.live.look_at("shop/cart")
    assert {port.level for port in look.merged.ports} == {Level.OK}
    assert len(cluster.asked) == 1


async def test_many_nodes_are_queried_less_often():
    cluster = Cluster(summaries_of(calm_cluster(1000)), {})
    for seconds, asked in ((0.0, 1), (90.0, 1), (101.0, 2)):
        cluster.seconds = seconds
        await cluster.live.look_at("shop/calm-1")
        assert len(cluster.asked) == asked


async def test_an_unreadable_complete_response_does_not_replace_the_summary():
    cluster = Cluster(summaries_of(sick_cluster()), {"node-1": b"no json"})
    look = await cluster.live.look_at("shop/cart")
    (port,) = look.merged.ports
    assert set(port.members) == {"node-2"}


async def test_a_services_page_sends_no_request_if_all_responses_are_complete():
    cluster = Cluster(sick_cluster())
    look = await cluster.live.look_at("shop/web")
    assert [port.key.service for port in look.merged.ports] == ["web"]
    assert cluster.asked == []
