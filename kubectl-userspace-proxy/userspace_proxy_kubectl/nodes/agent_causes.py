"""Declares the causes of agents that don't answer, shown by tools that read all nodes.

no agent · not running · no answer in time · no port-forward · an unreadable answer

No row contains the node's name, so nodes with the same cause share one line.
"""

from __future__ import annotations

from userspace_proxy.causes.cause import CauseCode, cause

_OF_POD = "describe pod -n {where} {agent}"
_PODS = "get pods -n {where} -o wide"
_OF_NODE = (
    "The node, its kubelet or the agent may be stopped, or may be cut off from the API server"
)
_OF_MEMORY = "Raise the memory limit of the agent's container (resources.limits.memory)"
_OF_PORT = "Look at the agent's log, and at what listens at its port"


@cause(
    CauseCode.AGENT_MISSING,
    hint="Look at the events of the DaemonSet: a pod of it should run there",
    kubectl="describe daemonsets -n {where}",
)
def no_agent(where: str) -> str:
    """The DaemonSet should have a pod on the node, but doesn't."""
    return "no agent"


@cause(
    CauseCode.AGENT_MISSING,
    hint="Compare its nodeSelector, affinity and tolerations with the Node's labels and taints, "
    "unless another proxy serves this node",
    kubectl="describe daemonsets -n {where}",
)
def agent_excluded(where: str) -> str:
    """No DaemonSet of the agents targets the node."""
    return "no agent: the DaemonSet excludes the node"


@cause(CauseCode.AGENT_MISSING, hint="Look at the pod's events", kubectl=_OF_POD)
def agent_not_running(where: str, why: str, agent: str) -> str:
    """The agent's pod exists but doesn't run yet."""
    return f"the agent's pod does not run: {why}"


def _end_hint(*, out_of_memory: bool, **_: object) -> str:
    return _OF_MEMORY if out_of_memory else "Look at the pod's events and its last log"


@cause(CauseCode.AGENT_MISSING, hint=_end_hint, kubectl="logs --previous -n {where} {agent}")
def agent_ended(where: str, why: str, agent: str, *, out_of_memory: bool = False) -> str:
    """The agent's pod isn't running after it has ended."""
    # It is unknown if the agent's rules still exist; without them, clients of ClusterIPs fail.
    fails = "its node refuses or ignores clients, except on a kernel path that is left"
    return f"the agent's pod does not run, so {fails}: {why}"


@cause(CauseCode.AGENT_MISSING, hint=_end_hint, kubectl=_PODS)
def agent_restarts(
    why: str,
    where: str,
    *,
    is_repeated: bool = False,
    out_of_memory: bool = False,
    is_graceful: bool = False,
) -> str:
    """The agent runs, but its container was restarted in the last minutes."""
    restarted = "is restarted again and again" if is_repeated else "was restarted"
    each = "each time, clients lose" if is_repeated else "clients lost"
    # After a graceful end, connections may have continued in another agent.
    lost = "" if is_graceful else f"; {each} connections through it"
    return f"the agent's container {restarted}: it {why}{lost}"


def _and_node(text: str, node_state: str) -> str:
    return f"the Node is not ready: {node_state}; {text}" if node_state else text


@cause(CauseCode.AGENT_UNREAD, hint=_OF_NODE, kubectl=_PODS)
def no_answer(where: str, seconds: float, node_state: str = "") -> str:
    """The agent was asked but didn't answer in time."""
    return _and_node(f"no answer within {seconds:g} s", node_state)


@cause(
    CauseCode.AGENT_UNREAD,
    hint="See whether the API server runs, and what is between it and this machine: agents serve "
    "without it, and show the same with `userspace-proxy status` on their nodes",
    kubectl="get --raw=/readyz",
)
def no_api_server(why: str, *, as_of: str = "") -> str:
    """The API server can't be reached; ``as_of`` is the time of the last answers, if shown."""
    return f"{why}; what follows is of {as_of}" if as_of else why


@cause(
    CauseCode.AGENT_UNREAD,
    hint="Give more time with --timeout, or name nodes with --node",
)
def not_asked(seconds: float) -> str:
    """The deadline passed before the agent was asked, because other agents used up the time."""
    return f"not asked within {seconds:g} s, as other nodes answered slowly"


@cause(CauseCode.AGENT_UNREAD, hint=_OF_NODE, kubectl=_PODS)
def gone_silent(where: str, seconds: float, node_state: str = "") -> str:
    """The agent's stream of changes has fallen silent."""
    return _and_node(f"the agent has sent nothing for {seconds:g} s", node_state)


def _forward_hint(where: str, why: str, node_state: str, out_of_memory: bool) -> str:
    if out_of_memory:
        return _OF_MEMORY
    return "The node's kubelet opens port-forwards: look at the node, and at the agent's pod"


@cause(CauseCode.AGENT_UNREAD, hint=_forward_hint, kubectl=_PODS)
def forward_failed(
    where: str, why: str, node_state: str = "", *, out_of_memory: bool = False
) -> str:
    """The API server or the kubelet can't open a stream to the agent, or the stream broke."""
    # It is unknown whether the agent's container runs, and therefore whether clients are served.
    failed = "port-forward failed; if the agent is down, its node may refuse clients"
    return _and_node(f"{failed}: {why}", node_state)


@cause(CauseCode.AGENT_UNREAD, hint=_OF_PORT, kubectl=_PODS)
def answer_too_large(where: str, mebibytes: float) -> str:
    """The answer is too large, or takes too much memory when decoded."""
    return f"the answer takes more than {mebibytes:.3g} MiB, and is not read"


@cause(CauseCode.AGENT_UNREAD, hint=_OF_PORT, kubectl=_PODS)
def answer_unreadable(where: str, why: str) -> str:
    """The answer is malformed, an HTTP error, or isn't from a proxy."""
    return f"the answer can't be read: {why}"
