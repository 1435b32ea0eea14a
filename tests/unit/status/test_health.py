import json

import pytest

from userspace_proxy.facts import SyncFacts, TrackingFacts
from userspace_proxy.status.health import (
    NEVER,
    answer_healthz,
    answer_livez,
    go_time,
    is_working,
    late_s,
)

from .views import NOW, make_view, replace

FULL = TrackingFacts(1000, 1000, is_full=True)


def view_with(**sync):
    return make_view(sync=SyncFacts(**{"last_done": NOW - 600, "last_queued": NOW - 700, **sync}))


def test_healthz_has_kube_proxys_fields_and_time_format():
    answer = answer_healthz(make_view(sync=SyncFacts(last_done=1_763_600_000)), 1_763_600_000.25)
    assert answer.status == 200
    of_family = {"lastUpdated": "2025-11-20T00:53:20Z", "healthy": True}
    assert json.loads(answer.body) == {
        "lastUpdated": "2025-11-20T00:53:20.25Z",
        "currentTime": "2025-11-20T00:53:20.25Z",
        "nodeEligible": True,
        "healthy": True,
        "status": {"IPv4": of_family, "IPv6": of_family},
    }


def test_healthz_has_no_status_of_a_family_before_the_first_sync_round():
    body = json.loads(answer_healthz(make_view(sync=SyncFacts(), is_ready=False), NOW).body)
    assert body == {
        "lastUpdated": NEVER,
        "currentTime": go_time(NOW),
        "nodeEligible": True,
        "healthy": True,
    }


def test_livez_does_not_depend_on_the_node_object():
    body = json.loads(answer_livez(make_view(node_is_eligible=False), NOW).body)
    assert body.keys() == {"lastUpdated", "currentTime", "healthy", "status"}
    assert body["healthy"] is True
    assert body["lastUpdated"] == go_time(NOW)


def test_a_node_about_to_be_deleted_is_ineligible_while_its_proxy_is_healthy():
    answer = answer_healthz(make_view(node_is_eligible=False), NOW)
    body = json.loads(answer.body)
    assert answer.status == 503
    assert (body["nodeEligible"], body["healthy"]) == (False, True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, True, id="healthy"),
        pytest.param({"node_is_eligible": False}, True, id="node-leaves"),
        pytest.param({"is_ready": False}, True, id="not-synced-yet-or-draining"),
        pytest.param({"sync": SyncFacts(waiting_since=NOW - 61)}, False, id="late-change"),
    ],
)
def test_health_check_ports_depend_only_on_sync_rounds(changes, expected):
    assert is_working(make_view(**changes), NOW) is expected


def test_last_updated_is_the_time_of_the_last_sync_round_while_the_proxy_is_unhealthy():
    answer = answer_healthz(view_with(waiting_since=NOW - 100), NOW)
    assert json.loads(answer.body)["lastUpdated"] == go_time(NOW - 600)


@pytest.mark.parametrize(
    ("changes", "healthz", "livez"),
    [
        pytest.param({}, 200, 200, id="healthy"),
        pytest.param({"is_ready": False}, 503, 200, id="not-synced-yet"),
        pytest.param({"node_is_eligible": False}, 503, 200, id="node-leaves"),
        pytest.param({"sync": SyncFacts(waiting_since=NOW - 600)}, 503, 200, id="late-change"),
        pytest.param({"sync": SyncFacts(waiting_since=NOW - 60)}, 503, 200, id="late-by-now"),
        pytest.param({"sync": SyncFacts(waiting_since=NOW - 59.9)}, 200, 200, id="change-in-time"),
        pytest.param({"sync": SyncFacts()}, 200, 200, id="no-change-yet"),
        pytest.param({"tracking": FULL}, 200, 200, id="no-entry-left"),
        pytest.param({"tracking": replace(FULL, is_dropping=True)}, 503, 200, id="table-drops"),
        pytest.param({"sync": SyncFacts(turned_s_ago=59.9)}, 200, 200, id="a-long-turn"),
        pytest.param({"sync": SyncFacts(turned_s_ago=60)}, 200, 503, id="the-loop-is-stuck"),
    ],
)
def test_healthz_fails_while_unhealthy_and_livez_only_if_the_loop_is_stuck(changes, healthz, livez):
    view = make_view(**changes)
    assert (answer_healthz(view, NOW).status, answer_livez(view, NOW).status) == (healthz, livez)


@pytest.mark.parametrize(
    ("sync", "expected"),
    [
        pytest.param({"last_queued": NOW - 61, "waiting_since": NOW - 61}, 61, id="change-waits"),
        pytest.param({"last_queued": NOW - 61, "last_done": NOW - 90}, 0, id="nothing-waits"),
        pytest.param({"last_queued": NOW - 90, "last_done": NOW - 61}, 0, id="done-after-queued"),
        pytest.param(
            {"last_queued": NOW - 1, "last_done": NOW - 90, "waiting_since": NOW - 80},
            80,
            id="repeated-changes-none-applied",
        ),
        pytest.param({"waiting_since": NOW + 3600}, 0, id="clock-was-set-back"),
    ],
)
def test_the_sync_delay_is_measured_from_the_oldest_pending_change(sync, expected):
    assert late_s(replace(SyncFacts(), **sync), NOW) == expected


@pytest.mark.parametrize("unix", [0.0, float("nan"), float("inf"), 1e30])
def test_a_missing_or_impossible_time_is_encoded_as_the_zero_time_of_go(unix):
    assert go_time(unix) == NEVER


@pytest.mark.parametrize(
    ("unix", "expected"),
    [
        pytest.param(1_763_600_000, "2025-11-20T00:53:20Z", id="whole-second"),
        pytest.param(1_763_600_000.5, "2025-11-20T00:53:20.5Z", id="half"),
        pytest.param(1_763_600_010.0, "2025-11-20T00:53:30Z", id="ends-in-a-zero"),
    ],
)
def test_times_are_formatted_as_go_formats_them(unix, expected):
    assert go_time(unix) == expected
