"""Service ports wait for their turn to enter the kernel path, and leave it immediately."""

from userspace_proxy.agent.rounds import kernel_turns
from userspace_proxy.agent.rounds.kernel_turns import WAITS
from userspace_proxy.model import DataPath, Handling
from userspace_proxy.plan.kernel_room import RULE_ELEMENTS
from userspace_proxy.steering import Bind, KernelTarget

from .test_kernel_path import POD, Cluster

KERNEL = Handling(path=DataPath.KERNEL)


def in_kernel(served_ports):
    """Return the Services on the kernel path, sorted."""
    return sorted(
        served.plan.key.name.name for served in served_ports if served.path.now is DataPath.KERNEL
    )


def turn(served_ports):
    """Let the next Service ports enter the kernel path; return the names of all on it."""
    served_ports.switch_paths()
    served_ports.steered.mark(served_ports.steered.change())
    return in_kernel(served_ports)


def serve(cluster, count, handling, **fields):
    for n in range(count):
        vip = f"10.96.0.{n + 1}"
        snapshot = cluster.serve(f"web-{n}", vip, POD, handling=handling, **fields)
    return snapshot


async def test_only_a_few_service_ports_enter_the_kernel_path_in_one_round(make, monkeypatch):
    monkeypatch.setattr(kernel_turns, "TURN_ELEMENTS", 2 * (1 + 3))
    cluster, served_ports, woken = Cluster(), make(Bind.PROXY_PORT), []
    served_ports.auto_paths.on_change = lambda: woken.append(True)
    targets = served_ports.follow(serve(cluster, 5, KERNEL))
    entered = in_kernel(served_ports)
    assert (len(entered), len(woken)) == (2, 1)
    assert [served.path.why for served in served_ports].count(WAITS.why) == 3
    assert all(isinstance(target, KernelTarget) for target in targets.values()), "open flows"
    assert [target.is_on for target in targets.values()].count(True) == 2
    assert len(turn(served_ports)) == 4
    assert len(turn(served_ports)) == 5
    assert len(woken) == 2


async def test_affinity_rules_count_as_several_elements(make, monkeypatch):
    monkeypatch.setattr(kernel_turns, "TURN_ELEMENTS", 2 * (1 + 3 + (4 + 4) * RULE_ELEMENTS))
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(serve(cluster, 5, KERNEL, affinity_timeout_s=60))
    assert len(in_kernel(served_ports)) == 2


async def test_no_service_port_enters_the_kernel_path_while_may_enter_is_false(make, monkeypatch):
    monkeypatch.setattr(kernel_turns, "TURN_ELEMENTS", 1)
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(serve(cluster, 3, KERNEL))
    served_ports.switch_paths(may_enter=False)
    assert len(in_kernel(served_ports)) == 1
    assert [served.chosen for served in served_ports].count(WAITS) == 2
    assert len(turn(served_ports)) == 2


async def test_service_ports_leaving_the_kernel_path_do_not_wait(make, monkeypatch):
    monkeypatch.setattr(kernel_turns, "TURN_ELEMENTS", 1)
    cluster, served_ports = Cluster(), make(Bind.PROXY_PORT)
    served_ports.follow(serve(cluster, 3, KERNEL))
    assert len(in_kernel(served_ports)) == 1
    served_ports.follow(serve(cluster, 3, Handling()))
    assert in_kernel(served_ports) == []
    assert turn(served_ports) == []
    served_ports.follow(serve(cluster, 3, KERNEL))
    served_ports.close()
    served_ports.switch_paths()
