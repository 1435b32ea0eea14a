import json
import pathlib
from dataclasses import dataclass

import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import dial_failed, refuses
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.causes.services import held_by
from userspace_proxy.facts import (
    BridgeFacts,
    ClientAddressFacts,
    FirewallFacts,
    LastStateFacts,
    RejectedFacts,
    SourceFacts,
    Times,
    UnservedFacts,
)
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy.facts.last_minute import MINUTE_NAMES
from userspace_proxy.facts.node import ObjectKey
from userspace_proxy.model import Failure
from userspace_proxy.status.answers import render_configz, render_status
from userspace_proxy.status.selection import Selection

from .views import (
    NOW,
    make_address,
    make_calm_view,
    make_endpoint,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
    replace,
)

REFUSED = {CauseCode.ENDPOINT_REFUSES: 1}


def status(view, **selection):
    return json.loads(render_status(view, now=NOW, selection=Selection(**selection)))


def test_the_fields_of_the_view_are_included_by_name():
    answer = status(make_calm_view())
    assert answer["node"] == "node-a"
    assert answer["source"]["kind"] == "kubernetes"
    assert answer["now"] == NOW
    assert answer["verdict"] == "No problems. 4 Service ports served."
    web = answer["ports"][2]
    assert (web["service"], web["endpoints"][0]["connections"]) == ("web", 18_204)
    assert web["state"]["word"] == "served"


TAKEN = held_by("10.96.7.1:80/TCP", "shop/a:http")
PARTS = ("frontends", "endpoints", "last_minute", "state", "turned_away", "client_mistakes")
NOTE = {
    "code": "not-followed",
    "sentence": "a note",
    "object": "",
    "hint": "",
    "count": 0,
    "first_at": 0.0,
    "last_at": 0.0,
    "kind": "as-read not-followed",
    "params": {"sentence": "a note", "about": "", "hint": ""},
}
REFUSES = {
    "code": "endpoint-refuses",
    "sentence": say(refuses("10.244.1.7:8080")),
    "object": "10.244.1.7:8080",
    "hint": remedy(refuses("10.244.1.7:8080")),
    "count": 1,
    "first_at": 1600.0,
    "last_at": 1600.0,
    "kind": "refuses",
    "params": {"at": "10.244.1.7:8080", "was_open": False},
}
NOT_LISTENING = {
    **NOTE,
    "code": "not-listening",
    "sentence": "in use",
    "hint": "stop it",
    "kind": "not_listening",
    "params": {"problem": "in use", "hint": "stop it", "chain": ""},
}


@pytest.fixture(scope="module")
def shown():
    """A Service port of the status."""
    endpoint = make_endpoint("10.244.1.7:8080", node="node-a", connections=3, failures=1)
    at = make_address(endpoint.address)
    failing = replace(
        endpoint,
        cause=replace(
            dial_failed(at, Failure.REFUSED, ""), count=1, first_at=1600.0, last_at=1600.0
        ),
        answered_at=1500.0,
        failures_by_cause=REFUSED,
    )
    port = make_port(endpoints=(failing,), affinity_timeout_s=600, notes=("a note",))
    view = make_view(
        replace(
            port,
            problem="in use",
            hint="stop it",
            saved=3,
            connect_times=Times((0.1, 1.0), (3, 1, 0), 0.5),
            failures_by_cause=REFUSED,
            evicted=4,
            evicted_for_memory=1,
            ended_by_removal=2,
            bad_headers=3,
        )
    )
    (shown,) = status(view)["ports"]
    return shown


def test_clients_that_are_turned_away_are_lists(shown):
    assert (shown["turned_away"], shown["client_mistakes"]) == ([], [])


def test_a_service_port_has_these_fields(shown):
    assert {name: value for name, value in shown.items() if name not in PARTS} == {
        "namespace": "shop",
        "service": "web",
        "port": "http",
        "family": "IPv4",
        "protocol": "TCP",
        "side": "",
        "cause": None,
        "is_dropping": False,
        "policy": "",
        "admits": None,
        "balance": "",
        "max_connections": None,
        "slow_start_s": 0.0,
        "hold_s": None,
        "path": "userspace",
        "path_since": 0.0,
        "path_why": "",
        "kernel_connections": None,
        "is_probed": False,
        "affinity_timeout_s": 600,
        "notes": [NOTE],
        "problem": "in use",
        "hint": "stop it",
        "active": 12,
        "connections": 36_407,
        "failures": 0,
        "stalled": 0,
        "preserved": 0,
        "received_bytes": 96_400_000,
        "sent_bytes": 2_400_000_000,
        **dict.fromkeys(("resets", "empty", "client_aborts", "unanswered_flows", "ended_idle"), 0),
        "failures_by_cause": {"endpoint-refuses": 1},
        "saved": 3,
        "connect_times": {"bounds": [0.1, 1.0], "counts": [3, 1, 0], "seconds": 0.5},
        "first_byte_times": {"bounds": [], "counts": [], "seconds": 0.0},
        "refused": 0,
        "denied": 0,
        "proxy_protocol": None,
        "shared_number": "",
        "dropped_datagrams": 0,
        "evicted": 4,
        "evicted_for_memory": 1,
        "ended_by_removal": 2,
        "bad_headers": 3,
        "shortages": 0,
        "waits": {
            "waiting": 0,
            "longest_s": 0.0,
            "total": 0,
            "timeouts": 0,
            "overflows": 0,
            "client_aborts": 0,
            "problem": "",
        },
        "sent_at": 0.0,
        **dict.fromkeys(("socket_connections", "unanswered")),
        **dict.fromkeys(("is_out_of_ports", "is_out_of_client_ports", "is_quiet"), False),
    }


def test_a_service_port_has_its_state(shown):
    assert shown["state"] == {
        "level": "trouble",
        "word": "not served",
        "sentence": "Not served: in use",
        "code": "not-listening",
        "hint": "stop it",
        "causes": [NOT_LISTENING, REFUSES, NOTE],
        "clauses": [{"text": "Not served: in use", "causes": [0], "is_dated": False}],
    }


def test_a_service_port_has_its_clients_of_the_last_minute(shown):
    others = {"cause": None, "was_many": False, "is_unusual": False, "have_left": False}
    assert shown["last_minute"] == {**dict.fromkeys(MINUTE_NAMES, 0), **others}


def test_a_frontend_has_these_fields(shown):
    assert shown["frontends"] == [
        {
            "address": "10.96.7.118:80",
            "kind": "ClusterIP",
            "target": "proxy port 20118",
            "is_reached": True,
            "only_at": "",
        }
    ]


def test_an_endpoint_has_these_fields(shown):
    assert shown["endpoints"] == [
        {
            "address": "10.244.1.7:8080",
            "state": "ready",
            "is_usable": True,
            "code": None,
            "weight": 100,
            "priority": 0,
            "is_standby": False,
            "starting": None,
            "preference": "",
            "node": "node-a",
            "ejected_for_s": None,
            "cause": REFUSES,
            "active": 0,
            "connections": 3,
            "failures": 1,
            "stalled": 0,
            "preserved": 0,
            "received_bytes": 0,
            "sent_bytes": 0,
            "resets": 0,
            "empty": 0,
            "client_aborts": 0,
            "unanswered_flows": 0,
            "failures_by_cause": {"endpoint-refuses": 1},
            "host": "",
            "pod": "",
            "answered_at": 1500.0,
            "is_past": False,
            "sent_at": 0.0,
        }
    ]


def test_problems_of_the_node_are_included_by_name():
    view = make_view(
        unserved=(UnservedFacts("cannot serve it", "stop the other"),),
        ignored=(make_ignored("shop/db", "80", TAKEN, is_conflict=True),),
        client_address=ClientAddressFacts(True, bridges=(BridgeFacts("cni0", "IPv4", "so", "do"),)),
        source=SourceFacts(
            rejected=(
                RejectedFacts.at(
                    "a.yaml:3", "it is odd", ObjectKey("Service", "shop", "a"), ("shop/a",)
                ),
            )
        ),
    )
    answer = status(view)
    assert answer["unserved"] == [{"problem": "cannot serve it", "hint": "stop the other"}]
    assert answer["ignored"] == [
        {
            "service": "shop/db",
            "port": "80",
            "cause": {
                **NOTE,
                "code": "address-taken",
                "sentence": say(TAKEN),
                "object": "10.96.7.1:80/TCP",
                "hint": remedy(TAKEN),
                "kind": "held_by",
                "params": {"address": "10.96.7.1:80/TCP", "holder": "shop/a:http"},
            },
            "is_conflict": True,
        }
    ]
    assert answer["source"]["rejected"] == [
        {
            "line": "a.yaml:3: it is odd",
            "object": "Service shop/a",
            "kind": "Service",
            "namespace": "shop",
            "name": "a",
            "services": ["shop/a"],
            "keeps": [],
            "place": "a.yaml:3",
            "problem": "it is odd",
            "note": None,
        }
    ]
    assert answer["client_address"] == {
        "is_on": True,
        "why_not": "",
        "problem": "",
        "repairs": 0,
        "bridges": [{"name": "cni0", "family": "IPv4", "cause": "so", "hint": "do"}],
    }


@pytest.mark.parametrize(
    ("served_at", "age_s"),
    [pytest.param(NOW - 180, 180.0, id="served"), pytest.param(0, None, id="not-served")],
)
def test_the_last_state_has_its_age_while_it_is_served(served_at, age_s):
    view = make_view(last_state=LastStateFacts("/var/lib/state", served_at))
    assert status(view)["last_state"] == {
        "path": "/var/lib/state",
        "served_at": served_at,
        "age_s": age_s,
        "problem": "",
        "failing_since": 0,
        "failures": 0,
    }


def test_workers_are_included_by_name():
    answer = status(replace(make_troubled_view(), worker_problems=("worker 1 ended by signal 9",)))
    assert answer["workers"] == [
        {
            "index": 0,
            "pid": 4711,
            "restarts": 2,
            "connections": 1_204,
            "flows": 310,
            "iterations": [[0.001, 900], [0.02, 90], [None, 3]],
            "iterations_s": 1.5,
            "hung": 0,
        },
        {
            "index": 1,
            "pid": 0,
            "restarts": 3,
            "connections": 0,
            "flows": 0,
            "iterations": [],
            "iterations_s": 0.0,
            "hung": 1,
        },
    ]
    assert answer["worker_problems"] == ["worker 1 ended by signal 9"]


def test_settings_are_left_to_configz():
    assert "config" not in status(make_calm_view())


def test_problems_are_sentences_the_worst_first():
    answer = status(make_troubled_view())
    assert answer["level"] == "trouble"
    assert answer["problems"][3] == {
        "level": "trouble",
        "what": "Not served: cannot listen on 10.96.7.30:80/TCP: Address already in use",
        "hint": "",
        "port": "shop/admin:http",
        "family": "IPv4",
        "side": "",
        "code": "not-listening",
        "kind": "",
    }


def test_a_selection_narrows_the_ports_and_not_the_summary():
    answer = status(make_troubled_view(), q="cart")
    assert [port["service"] for port in answer["ports"]] == ["cart"]
    assert answer["verdict"] == "4 problems on this node. 6 of 10 Service ports need attention."


def test_infinity_is_null():
    odd = make_endpoint("10.0.0.1:1", "ready", True, ejected_for_s=float("inf"))
    answer = status(make_view(make_port(endpoints=(odd,))))
    assert answer["ports"][0]["endpoints"][0]["ejected_for_s"] is None
    assert answer["ports"][0]["endpoints"][0]["address"] == "10.0.0.1:1"


def test_configz_has_value_and_origin():
    assert json.loads(render_configz(make_view())) == {
        "settings": {
            "nodePortAddresses": {"value": ["primary"], "origin": "file"},
            "steering": {"value": "nftables", "origin": "flag"},
            "udpIdleTimeout": {"value": 120.0, "origin": "default"},
        }
    }


@dataclass(frozen=True)
class Ports:
    first: int
    last: int


def test_configz_encodes_every_value():
    config = (
        ("a", pathlib.PurePosixPath("web.yaml"), "flag"),
        ("b", Ports(1, 2), "file"),
        ("c", frozenset({"x", "y"}), "file"),
        ("d", float("inf"), "default"),
        ("e", None, "default"),
        ("f", {"k": Ports(3, 4)}, "file"),
    )
    settings = json.loads(render_configz(make_view(config=config)))["settings"]
    assert [settings[name]["value"] for name in "abcdef"] == [
        "web.yaml",
        {"first": 1, "last": 2},
        ["x", "y"],
        None,
        None,
        {"k": {"first": 3, "last": 4}},
    ]


def test_sides_policies_and_health_checks_are_included_by_name():
    view = replace(make_calm_view(), ports=make_two_sides())
    answer = status(view)
    inside, outside = answer["ports"]
    assert (inside["side"], inside["balance"], inside["admits"]) == ("", "least-connections", None)
    assert (outside["side"], outside["state"]["word"]) == ("external", "dropped")
    assert answer["health_checks"][1] == {
        "service": "shop/shop-front",
        "port": 31_080,
        "local_endpoints": 2,
        "problem": "",
    }
    assert status(view, q="checkout")["health_checks"] == answer["health_checks"][:1]


def test_the_answer_is_of_the_types_that_its_schema_is_made_from():
    view = replace(
        make_troubled_view(),
        firewalls=(FirewallFacts("ip filter INPUT", "it drops", "accept them"),),
        health_checks=make_calm_view().health_checks,
    )
    body = render_status(view, now=NOW)
    assert encode_answer(read_answer(body)) == body


def test_one_cause_of_several_services_is_one_incident_of_the_json():
    dead = refuses("10.244.0.9:8080").replace(count=2, first_at=NOW - 9, last_at=NOW - 2)
    endpoints = (make_endpoint("10.244.0.9:8080", cause=dead),)
    view = make_view(*(make_port(name, endpoints=endpoints) for name in ("a", "b", "c")))
    (incident,) = json.loads(render_status(view, now=NOW))["incidents"]
    assert incident["services"] == ["shop/a", "shop/b", "shop/c"]
    assert (incident["level"], incident["cause"]["count"]) == ("trouble", 6)
    part = view.only("shop/a")
    assert json.loads(render_status(part, now=NOW, whole=view))["incidents"] == [incident]
    assert read_answer(render_status(view, now=NOW)).incidents[0].id == incident["id"]


def test_an_answer_about_a_service_has_only_the_incidents_that_touch_it():
    dead = (make_endpoint("10.244.0.9:8080", cause=refuses("10.244.0.9:8080")),)
    view = make_view(make_port("a", endpoints=dead), make_port("calm"))
    calm = view.only("shop/calm")
    assert json.loads(render_status(calm, now=NOW, whole=view))["incidents"] == []
