import json
import pathlib
from dataclasses import dataclass

import pytest

from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.facts import (
    FirewallFacts,
    LastStateFacts,
)
from userspace_proxy.facts.encoding import encode_answer, read_answer
from userspace_proxy.status.answers import render_configz, render_status
from userspace_proxy.status.selection import Selection

from .recorded import changed
from .views import (
    NOW,
    make_calm_view,
    make_endpoint,
    make_port,
    make_troubled_view,
    make_view,
    replace,
)


def status(view, **selection):
    return json.loads(render_status(view, now=NOW, selection=Selection(**selection)))


@pytest.mark.parametrize(
    ("served_at", "age_s"),
    [pytest.param(NOW - 180, 180.0, id="served"), pytest.param(0, None, id="not-served")],
)
def test_the_status_contains_the_saved_states_age_only_while_it_is_served(served_at, age_s):
    view = make_view(last_state=LastStateFacts("/var/lib/state", served_at))
    assert status(view)["last_state"] == {
        "path": "/var/lib/state",
        "served_at": served_at,
        "age_s": age_s,
        "problem": "",
        "failing_since": 0,
        "failures": 0,
    }


def test_infinity_is_encoded_as_null():
    odd = make_endpoint("10.0.0.1:1", "ready", True, ejected_for_s=float("inf"))
    answer = status(make_view(make_port(endpoints=(odd,))))
    assert answer["ports"][0]["endpoints"][0]["ejected_for_s"] is None
    assert answer["ports"][0]["endpoints"][0]["address"] == "10.0.0.1:1"


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


def test_a_decoded_response_encodes_to_the_same_json():
    view = replace(
        make_troubled_view(),
        firewalls=(FirewallFacts("ip filter INPUT", "it drops", "accept them"),),
        health_checks=make_calm_view().health_checks,
    )
    body = render_status(view, now=NOW)
    assert encode_answer(read_answer(body)) == body


def test_a_cause_shared_by_several_services_is_one_incident_in_the_json():
    dead = refuses("10.244.0.9:8080").replace(count=2, first_at=NOW - 9, last_at=NOW - 2)
    endpoints = (make_endpoint("10.244.0.9:8080", cause=dead),)
    view = make_view(*(make_port(name, endpoints=endpoints) for name in ("a", "b", "c")))
    (incident,) = json.loads(render_status(view, now=NOW))["incidents"]
    assert incident["services"] == ["shop/a", "shop/b", "shop/c"]
    assert (incident["level"], incident["cause"]["count"]) == ("trouble", 6)
    part = view.only("shop/a")
    assert json.loads(render_status(part, now=NOW, whole=view))["incidents"] == [incident]
    assert read_answer(render_status(view, now=NOW)).incidents[0].id == incident["id"]


def test_a_response_about_one_service_contains_only_its_incidents():
    dead = (make_endpoint("10.244.0.9:8080", cause=refuses("10.244.0.9:8080")),)
    view = make_view(make_port("a", endpoints=dead), make_port("calm"))
    calm = view.only("shop/calm")
    assert json.loads(render_status(calm, now=NOW, whole=view))["incidents"] == []
    assert json.loads(render_status(view.only("shop/a"), now=NOW, whole=view))["served"] == 1


def test_responses_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "status", "configz") == []
