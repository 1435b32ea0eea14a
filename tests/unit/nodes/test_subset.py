from dataclasses import replace

import pytest

from tests.unit.status.views import make_ignored, make_port, make_view
from userspace_proxy.facts import Level
from userspace_proxy.status.search import Search
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.subset import found_in, missing_reason, part_of
from userspace_proxy_kubectl.nodes.sums import NOTHING
from userspace_proxy_kubectl.nodes.text import render_status
from userspace_proxy_kubectl.port_forward import ForwardTarget

WEB, DB = make_port("web"), make_port("db", namespace="cart")
BROKEN = make_port("web", problem="a program has the port")


def answer(node, *ports, **changes):
    agent = ForwardTarget("kube-system", f"pod-{node}", 10249)
    return AgentAnswer(node, (agent,), make_view(*ports, **changes))


def names_of(merged):
    return [str(port.key) for port in merged.ports]


TWO = AllNodes((answer("node-1", WEB, DB), answer("node-2", BROKEN, DB)))


def test_a_subset_contains_the_ports_of_one_service_or_namespace():
    assert names_of(part_of(merge(TWO), "shop/web")) == ["shop/web:http"]
    assert names_of(part_of(merge(TWO), "cart")) == ["cart/db:http"]
    assert len(part_of(merge(TWO), "").ports) == 2


def test_services_ignored_by_design_are_found_once_for_all_nodes():
    ignored = [make_ignored("shop/x", "", "c"), make_ignored("a/b", "", "c")]
    taken = make_ignored("shop/taken", "", "d", is_conflict=True)
    merged = merge(AllNodes(tuple(answer(n, WEB, ignored=[*ignored, taken]) for n in "ab")))
    assert part_of(merged, "shop").ignored == part_of(merged, "shop/x").ignored == (ignored[0],)
    found = found_in(merged, Search.parse("is:ignored"))
    assert (list(found.ignored), found.ports) == ([ignored[1], ignored[0]], ())


def test_a_namespaces_status_counts_other_namespaces_problems():
    """Users saw a healthy namespace while nine Services of another namespace failed."""
    merged = merge(TWO)
    assert render_status(part_of(merged, "cart")).body.decode().splitlines()[1] == (
        "namespace cart; 1 Service of another namespace needs attention: -A"
    )
    here = part_of(merged, "shop")
    assert render_status(here).body.decode().splitlines()[1] == "namespace shop"
    assert (merge(TWO).sums, here.sums) == (NOTHING, here.ports[0].sums), "namespaces are mixed"
    assert replace(merge(TWO), healthy=1).of_service("shop").sums is None


def test_node_problems_affect_the_level_of_a_namespace_but_not_of_a_service():
    silent = AllNodes((answer("node-1", WEB, DB), AgentAnswer("node-2")))
    silent = AllNodes((*silent.answers, answer("node-3", WEB, DB, version="0.0.9")))
    assert merge(silent).level is not Level.OK
    assert part_of(merge(silent), "cart").level is not Level.OK
    assert part_of(merge(silent), "cart/db").level is Level.OK


def test_a_search_selects_ports_that_match_on_any_node():
    assert names_of(found_in(merge(TWO), Search.parse("is:problem"))) == ["shop/web:http"]
    assert len(found_in(merge(TWO), Search.parse("is:ok")).ports) == 2
    found = found_in(replace(merge(TWO), healthy=7), Search.parse("cart"))
    assert (found.level, found.healthy) == (Level.OK, 0)
    missing = found_in(merge(TWO), Search.parse("nothing"))
    assert (
        render_status(missing).body.decode().splitlines()[1] == "  No Service port matches nothing"
    )
    missing = found_in(replace(merge(TWO), healthy=7), Search.parse("10.96.0.77"))
    assert missing.unmatched.startswith("No served Service that needs attention has the address")
    assert not found_in(merge(AllNodes()), Search.parse("nothing")).unmatched


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("", "", id="all"),
        pytest.param("shop", "", id="namespace"),
        pytest.param("shop/web", "", id="service"),
        pytest.param("shop/web:http", "", id="port"),
        pytest.param("shop/summed", "", id="omitted-by-a-summary"),
        pytest.param("shop/wbe", "did you mean shop/web?", id="misspelled"),
        pytest.param("cart/summed", "shop/summed exists", id="in-another-namespace"),
        pytest.param("shop/web:tls", "has no port tls", id="another-port"),
        pytest.param("shpo", "did you mean shop?", id="misspelled-namespace"),
        pytest.param("shop/headless", "is not served: no ClusterIP", id="ignored"),
        pytest.param("shop/canary", "is not served: of another", id="ignored-in-the-api-server"),
        pytest.param("shop/summed", "", id="one-port-ignored"),
        pytest.param("night", "", id="namespace-of-ignored-services"),
    ],
)
def test_a_requested_name_has_a_reason_only_if_it_is_not_served(name, words):
    ignored = make_ignored("shop/headless", "", "no ClusterIP")
    others = [make_ignored(name, "", "of another") for name in ("shop/canary", "night/canary")]
    others.append(make_ignored("shop/summed", "sctp", "SCTP"))
    answers = (answer("node-1", WEB, DB), answer("node-2", WEB, DB, ignored=(ignored, *others)))
    known = ("shop/summed", "shop/web", "cart/db", "shop/canary", "night/canary")
    summaries = tuple(replace(one, is_summary=True) for one in answers)
    all_nodes = AllNodes(summaries, digests=dict.fromkeys(known, ""))
    said = missing_reason(all_nodes, name)
    assert words in said
    assert bool(words) is bool(said)


def test_a_service_with_only_ignored_ports_is_reported_as_not_served():
    port = make_ignored("shop/sctp", "sctp", "no SCTP")
    known = AllNodes((answer("node-1", WEB, ignored=(port,)),), digests={"shop/sctp": ""})
    assert "no SCTP" in missing_reason(known, "shop/sctp")


def test_no_name_is_reported_missing_while_no_node_responds():
    assert missing_reason(AllNodes((AgentAnswer("node-1"),)), "shop/web") == ""


def test_a_namespace_omitted_by_summaries_is_not_reported_missing():
    summaries = tuple(replace(one, is_summary=True) for one in TWO.answers)
    assert missing_reason(AllNodes(summaries), "ops") == ""
    assert missing_reason(AllNodes(summaries, digests={}), "ops")
    assert missing_reason(AllNodes(summaries), "ops/web")
    assert missing_reason(TWO, "ops")
