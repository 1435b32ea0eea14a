import json
from dataclasses import replace

from userspace_proxy.causes.endpoints import silent, unreachable
from userspace_proxy.facts.encoding import load_cause
from userspace_proxy_kubectl.nodes.as_json import nodes_to_json, status_to_json
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.words import format_port

from .views import POD, answer_of, answering, failing, make_sick_cluster, merged_of, web


def test_status_json_contains_the_verdicts_of_all_nodes():
    merged = replace(merge(make_sick_cluster()), healthy=7)
    status = json.loads(status_to_json(merged))
    assert (status["level"], status["answered"], status["service_ports"]) == ("trouble", 6, 11)
    assert status["ignored"] == []
    port = next(one for one in status["ports"] if one["service"] == "api")
    assert port["sentence"] == format_port(merged.of_service("shop/api").ports[0], merged)
    (group,) = port["groups"]
    assert (group["state"], group["nodes"], port["served"]) == ("not answering", ["node-6"], 5)
    assert load_cause(group["causes"][0]) == silent(POD).replace(answers_nodes=True)
    (endpoint,) = port["endpoints"]
    assert (endpoint["extent"], len(endpoint["tried"]), len(endpoint["answered"])) == ("path", 6, 5)
    assert endpoint["failing"][0]["nodes"] == ["node-6"]
    cart = next(one for one in status["ports"] if one["service"] == "cart")
    assert (cart["connections"], cart["endpoints"]) == (6 * 36_407, [])
    incident = next(
        one for one in status["incidents"] if one["services"] == ["shop/api", "shop/web"]
    )
    assert (incident["tried"], incident["answered"], incident["extent"]) == (6, 5, "path")
    assert incident["cause"]["code"] == "endpoint-silent"
    assert incident["failing"] == [{"cause": incident["cause"], "nodes": ["node-6"]}]


def test_nodes_json_contains_the_causes_of_each_node():
    nodes = json.loads(nodes_to_json(merge(make_sick_cluster())))
    by_name = {row["node"]: row for row in nodes["nodes"]}
    assert [one["code"] for one in by_name["node-2"]["causes"]] == ["source-away"]
    assert [one["code"] for one in by_name["node-6"]["causes"]] == ["endpoint-silent"]
    ways = {"a": web(failing(silent(POD))), "b": web(failing(unreachable(POD)))}
    ways |= {node: web(answering()) for node in "cde"}
    merged = merged_of(*(answer_of(node, port) for node, port in ways.items()))
    causes = [row["causes"] for row in json.loads(nodes_to_json(merged))["nodes"]]
    assert [one["code"] for same in causes for one in same] == [
        "endpoint-silent",
        "endpoint-unreachable",
    ]
    assert by_name["node-4"]["settings"] == {"steering": {"here": "iptables", "usual": ""}}
    assert (by_name["node-6"]["ports"], by_name["node-6"]["ports_not_ok"]) == (4, 3)
    assert not by_name["node-7"]["has_answer"]
    assert [one["services"] for one in nodes["findings"] if one["services"]] == [["shop/web"]]
    assert {one["nodes"][0] for one in nodes["findings"]} == {f"node-{n}" for n in (2, 4, 5, 7, 8)}
