import json
from dataclasses import replace

import pytest

from userspace_proxy.status.health import NEVER, answer_healthz, answer_livez, go_time, late_s
from userspace_proxy.status.view import SyncView

from .views import NOW, make_view


def view_with(**sync):
    return make_view(sync=SyncView(**{"last_done": NOW - 600, "last_queued": NOW - 700, **sync}))


def test_the_json_has_kube_proxys_fields_and_form_of_time():
    answer = answer_healthz(make_view(), 1_763_600_000.25)
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "lastUpdated": "2025-11-20 00:53:20.250000 +0000 UTC",
        "currentTime": "2025-11-20 00:53:20.250000 +0000 UTC",
        "nodeEligible": True,
    }


def test_livez_says_nothing_of_the_node():
    assert json.loads(answer_livez(make_view(), NOW).body).keys() == {"lastUpdated", "currentTime"}


def test_last_updated_is_the_last_round_while_unhealthy():
    answer = answer_healthz(view_with(waiting_since=NOW - 100), NOW)
    assert json.loads(answer.body)["lastUpdated"] == go_time(NOW - 600)


@pytest.mark.parametrize(
    ("changes", "healthz", "livez"),
    [
        pytest.param({}, 200, 200, id="all-well"),
        pytest.param({"is_ready": False}, 503, 200, id="not-synced-yet"),
        pytest.param({"node_is_eligible": False}, 503, 200, id="node-is-to-be-deleted"),
        pytest.param({"sync": SyncView(waiting_since=NOW - 60.5)}, 503, 503, id="late-change"),
        pytest.param({"sync": SyncView(waiting_since=NOW - 60)}, 200, 200, id="change-in-time"),
        pytest.param({"sync": SyncView()}, 200, 200, id="nothing-ever-came-in"),
    ],
)
def test_status(changes, healthz, livez):
    view = make_view(**changes)
    assert (answer_healthz(view, NOW).status, answer_livez(view, NOW).status) == (healthz, livez)


@pytest.mark.parametrize(
    ("sync", "expected"),
    [
        pytest.param({"last_queued": NOW - 61, "last_done": NOW - 90}, 61, id="queued-after-done"),
        pytest.param({"last_queued": NOW - 90, "last_done": NOW - 61}, 0, id="done-after-queued"),
        pytest.param(
            {"last_queued": NOW - 1, "last_done": NOW - 90, "waiting_since": NOW - 80},
            80,
            id="changes-keep-coming-and-none-gets-in-force",
        ),
        pytest.param({"waiting_since": NOW + 3600}, 0, id="clock-was-set-back"),
    ],
)
def test_how_late_a_change_is(sync, expected):
    assert late_s(replace(SyncView(), **sync), NOW) == expected


@pytest.mark.parametrize("unix", [0.0, float("nan"), float("inf"), 1e30])
def test_no_time_at_all_is_gos_zero_time(unix):
    assert go_time(unix) == NEVER
