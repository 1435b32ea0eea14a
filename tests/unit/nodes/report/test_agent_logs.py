from userspace_proxy_kubectl.nodes.report import agent_logs
from userspace_proxy_kubectl.nodes.report.agent_logs import AgentLog, read_logs
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_answers import fixed
from userspace_proxy_testing.fakes.agents import FakeAgents


def targets(api, *logs):
    agents = FakeAgents(api)
    pods = [agents.add(f"node-{i}", fixed(b""), log=log) for i, log in enumerate(logs)]
    return [ForwardTarget("kube-system", pod, 10249) for pod in pods]


async def test_logs_are_returned_in_the_order_of_the_agents(api, client):
    agents = targets(api, *(f"line of {i}\n" for i in range(30)))
    found = await read_logs(client, agents)
    assert found == [AgentLog(agent, f"line of {i}\n") for i, agent in enumerate(agents)]


async def test_only_the_last_lines_of_a_long_log_are_kept(api, client, monkeypatch):
    monkeypatch.setattr(agent_logs, "LOG_BYTES", 100)
    (agent,) = targets(api, "".join(f"line {i:03}\n" for i in range(900)))
    (found,) = await read_logs(client, [agent])
    assert found.text.startswith("line 889\n")
    assert found.text.endswith("line 899\n")
    assert found.problem.startswith("only the last")
    assert f"tailLines={agent_logs.LINES}" in api.requests[-1]


async def test_logs_of_a_forbidden_namespace_are_requested_at_most_eight_times(api, client):
    api.denied = {"get pods/log"}
    agents = targets(api, *["x"] * 40)
    found = await read_logs(client, agents)
    assert {one.problem for one in found} == {
        "this user may not get pods/log in namespace kube-system"
    }
    assert len(api.requests) <= 8


async def test_the_total_size_of_logs_is_bounded(api, client, monkeypatch):
    monkeypatch.setattr(agent_logs, "ALL_BYTES", 40)
    found = await read_logs(client, targets(api, *["x" * 30] * 20))
    assert sum(len(one.text) for one in found) < 40 + 8 * 30
    assert "the logs of others" in found[-1].problem


async def test_a_vanished_pod_affects_only_its_own_log(api, client):
    (agent,) = targets(api, "x\n")
    gone = ForwardTarget("kube-system", "gone", 10249)
    found = await read_logs(client, [gone, agent])
    assert found == [AgentLog(gone, problem='pods "gone" not found'), AgentLog(agent, "x\n")]


async def test_a_log_not_read_within_the_timeout_is_reported_as_missing(api, client, monkeypatch):
    monkeypatch.setattr(agent_logs, "WITHIN_S", 0.0)
    (found,) = await read_logs(client, targets(api, "x\n"))
    assert found.problem == "not read within 0 s"
