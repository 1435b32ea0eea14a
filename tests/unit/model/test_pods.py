import json

import pytest

from userspace_proxy.model.pods import NOT_ENDED, last_end_of, read_pods
from userspace_proxy.model.wire import (
    FieldError,
    WireContainerState,
    WireContainerStatus,
    WireReason,
)

READY = [{"type": "Ready", "status": "True"}]
UNREADY = [{"type": "Ready", "status": "False", "message": "containers with unready status: [web]"}]


def read(status=None, *, name="web-1", **fields):
    pod = {"metadata": {"name": name, **fields.pop("metadata", {})}, "status": status, **fields}
    return read_pods([json.dumps(pod).encode()])[0]


def running(**container):
    """Return the status of a running pod with a ready container and a container in this state."""
    log = {"name": "log", "ready": True}
    return {"phase": "Running", "containerStatuses": [log, {"name": "web", **container}]}


UNFIT = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes\nfit"}
LOOPS = {"reason": "CrashLoopBackOff", "message": "back-off"}
ENDED = {"terminated": {"exitCode": 1, "reason": "Error"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


def test_a_ready_pod_has_its_labels_and_port_names():
    containers = [{"ports": [{"name": "http"}, {"containerPort": 1}]}, {}]
    pod = read(
        {"conditions": READY, "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}]},
        metadata={"labels": {"tier": "front", "app": "web", "empty": None}},
        spec={"containers": containers},
    )
    assert pod.labels == (("app", "web"), ("empty", ""), ("tier", "front"))
    assert (pod.is_ready, pod.reason, pod.port_names) == (True, "", ("http",))
    assert pod.ips == ("10.0.0.1", "::1")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (None, "its phase is unknown"),
        ({"phase": "Succeeded"}, "its phase is Succeeded"),
        ({"phase": "Pending", "conditions": [UNFIT]}, "it is not scheduled: 0/3 nodes fit"),
        (running(state={"waiting": {"reason": "Pull"}}), "container web waits: Pull"),
        (
            running(state={"waiting": LOOPS}, lastState=ENDED),
            "container web waits: CrashLoopBackOff; it ended with status 1",
        ),
        (running(state=KILLED), "container web ended with status 137 (OOMKilled)"),
        (
            running(state={"running": {}}),
            "container web runs, and its readiness probe hasn't succeeded",
        ),
        (
            running(ready=True),
            "its containers run, but it is marked unready, as pods of a Node that isn't ready",
        ),
        (
            {"phase": "Running", "conditions": UNREADY},
            "its phase is Running: containers with unready status: [web]",
        ),
    ],
)
def test_the_reason_why_a_pod_is_unready_is_returned(status, reason):
    pod = read(status)
    assert (pod.is_ready, pod.reason) == (False, reason)


def test_a_pod_being_deleted_is_not_ready():
    pod = read({"conditions": READY}, metadata={"deletionTimestamp": "2026-11-21T09:00:00Z"})
    assert (pod.is_ready, pod.reason) == (False, "it is being deleted")


def test_the_last_end_of_a_container_is_returned():
    assert last_end_of(WireContainerStatus()) == NOT_ENDED
    killed = WireContainerState(terminated=WireReason(reason="OOMKilled", exit_code=137))
    ended = "ended with status 137 (OOMKilled)"
    assert last_end_of(WireContainerStatus(last_state=killed)) == (ended, True, 0.0, False)


def test_pods_are_sorted_by_name():
    items = [b'{"metadata": {"name": "b"}}', b'{"metadata": {"name": "a"}}']
    assert [pod.name for pod in read_pods(items)] == ["a", "b"]
    assert read_pods([]) == ()


def test_invalid_pod_json_is_rejected():
    with pytest.raises(FieldError):
        read_pods([b"[]"])
