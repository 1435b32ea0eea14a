"""Tests of which pods are agents, their ports, and the pod that is queried on a node."""

import pytest

from userspace_proxy_kubectl.nodes.agent_pods import by_node, read_agent, serving

from .objects import pod, with_metadata, written

WAITING = {
    "name": "userspace-proxy",
    "ready": False,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
}


def agent(*args, **options):
    return read_agent(written(pod(*args, **options)))


def test_a_host_network_pod_is_an_agent():
    found = agent()
    assert str(found.target) == "pod kube-system/agent-1, port 10249"
    assert (found.node, found.is_running, found.is_ready) == ("node-1", True, True)
    assert (found.is_ending, found.takes_over, found.reason) == (False, True, "")
    assert agent(hostNetwork=False) is None
    assert agent(containers=[]) is None


@pytest.mark.parametrize(
    ("args", "port"),
    [
        pytest.param(["--metrics-bind-address=127.0.0.1:10349"], 10349, id="canary"),
        pytest.param(["--metrics-bind-address", "[::]:10350"], 10350, id="two-words"),
        (["--metrics-bind-address=:1", "--metrics-bind-address=0.0.0.0:2"], 2),
        pytest.param(["--metrics-bind-address=127.0.0.1"], 10249, id="no-port"),
        pytest.param(["--metrics-bind-address=127.0.0.1:99999"], 10249, id="no-such-port"),
        pytest.param(["--metrics-bind-address"], 10249, id="no-value"),
    ],
)
def test_the_agents_port_is_read_from_its_metrics_flag(args, port):
    assert agent(args=args).target.port == port


def test_a_crash_looping_container_counts_as_not_running():
    found = agent(status={"phase": "Running", "containerStatuses": [WAITING]})
    assert (found.is_running, found.is_ready) == (False, False)
    assert found.reason.startswith("container userspace-proxy ")
    assert ": CrashLoopBackOff; it ended" in found.reason
    assert found.last_end == ("ended with status 137 (OOMKilled)", True, 0.0, False)


def test_the_reason_why_a_pod_is_unscheduled_is_returned():
    condition = {"type": "PodScheduled", "status": "False", "message": "too few cpu"}
    found = agent(node=None, status={"phase": "Pending", "conditions": [condition]})
    assert (found.node, found.reason) == ("", "it is not scheduled: too few cpu")


def test_the_reason_why_an_agent_is_not_running_is_truncated():
    state = {"waiting": {"reason": "Error", "message": "x" * 100_000}}
    status = {"name": "userspace-proxy", "ready": False, "state": state}
    found = agent(status={"phase": "Running", "containerStatuses": [status]})
    assert len(found.reason) == 300


def test_the_serving_agent_of_several_is_queried_first():
    def of(day, **fields):
        created = f"2026-11-{day}T09:00:00Z"
        return with_metadata(pod(**fields), creationTimestamp=created)

    items = {
        "ready": pod(),
        "newest": of(22),
        "unready": {**of(24), "status": {"phase": "Running"}},
        "canary": of(25, args=["--service-proxy-name=new"]),
        "ending": with_metadata(of(26), deletionTimestamp="2026-11-26T10:00:00Z"),
        "pending": {**pod(), "status": {"phase": "Pending"}},
    }
    agents = [read_agent(written(with_metadata(one, name=name))) for name, one in items.items()]
    unscheduled = agent("nowhere", node=None)
    found = by_node([*agents, unscheduled, agent("other", "node-0")])
    assert list(found) == ["node-0", "node-1"]
    names = [one.target.pod for one in found["node-1"]]
    assert names == ["newest", "ready", "unready", "canary", "ending", "pending"]
    assert by_node(agents, "new")["node-1"][0].target.pod == "canary"


def test_a_canary_and_a_terminating_agent_do_not_count_as_a_second_agent():
    ready = pod()
    items = {
        "canary": pod(args=["--service-proxy-name=new"]),
        "ending": with_metadata(ready, deletionTimestamp="2026-11-26T10:00:00Z"),
        "rival": with_metadata(ready, creationTimestamp="2026-11-20T09:00:00Z"),
        "waiting": {**ready, "status": {"phase": "Pending"}},
        "ready": ready,
    }
    agents = {name: read_agent(written(with_metadata(o, name=name))) for name, o in items.items()}

    def serving_of(*names):
        found = by_node(agents[name] for name in names)["node-1"]
        return [one.pod for one in serving(found)]

    assert serving_of(*agents) == ["ready", "rival"]
    assert serving_of("canary", "ending", "ready") == ["ready"]
    assert serving_of("canary", "waiting") == ["canary"]
    assert serving_of("ending", "waiting") == ["ending"]
    assert serving_of("waiting") == []
