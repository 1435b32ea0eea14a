"""The nodes' network, and the namespaces that contain everything.

    world    bridge "lan" 172.30.0.1 ──veth──▶ node-1  172.30.0.11   pods 10.244.1.0/24
             route to each node's pods ──veth─▶ node-2  172.30.0.12   pods 10.244.2.0/24

In a cluster with IPv6, there are the same links with IPv6 addresses (`families`).

Rule 1: the world has a PID namespace; when its first process exits, the kernel kills all others,
which also removes their mounts and network namespaces.
Rule 2: the first process ends with this process, even if this process is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..child import Child
from ..waiting import wait_for
from .families import Families, Family, IPAddress, IPNetwork
from .groups import MOUNTED, NodeGroup

BRIDGE = "lan"

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 30.0
# The first process of a PID namespace inherits orphans, and must reap them.
HOLD = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"
# kubelet would set these sysctls for the whole machine, so it gets files with the expected values
# instead.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


class Holder:
    """The first process in new namespaces, and commands that enter them.

    Args:
        name: Its host name.
        folder: The folder for its log.
        unshare: Flags of unshare(1) for the new namespaces.
        prefix: A command that enters the outer namespaces.
    """

    def __init__(
        self, name: str, folder: Path, unshare: Sequence[str], prefix: Sequence[str] = ()
    ) -> None:
        self.name = name
        script = 'hostname "$1" && ip link set lo up && exec "$2" -IS -c "$3"'
        shell = ["sh", "-c", script, "holder", name, sys.executable, HOLD]
        self._child = Child(["unshare", *unshare, "--", *shell], folder / "holder.log", prefix)
        is_ready = f"the namespaces of {name}"
        self.pid = wait_for(is_ready, self._find, deadline_s=START_DEADLINE_S)

    def enter(self) -> tuple[str, ...]:
        """Return the prefix that runs a program in all of the namespaces."""
        names = ("--mount", "--uts", "--net", "--pid", "--cgroup")
        return ("nsenter", f"--target={self.pid}", *names, "--")

    def enter_network(self) -> tuple[str, ...]:
        """Return the prefix that runs a program only in the network namespace; it doesn't fork."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")

    def run(self, *command: str | Path, input: str | None = None) -> str:  # noqa: A002
        """Run a command to its end; return its output.

        Raises:
            AssertionError: It failed; the error contains its output.
        """
        done = subprocess.run(
            [*self.enter(), *command], input=input, capture_output=True, text=True
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, f"cannot {' '.join(map(str, command))} on {self.name}: {said}"
        return done.stdout

    def close(self) -> None:
        """Kill the first process; return when it has exited.

        Idempotent. In a PID namespace of its own, the kernel kills all other processes first.
        """
        if self._child.status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._child.wait(STOP_DEADLINE_S)

    def _find(self) -> int | None:
        """Return the PID of the process that holds the namespaces; None until these are set up."""
        if self._child.status is not None:
            raise AssertionError(f"cannot make {self.name}: {self._child.log_tail()}")
        pid = self._child.pid
        try:
            while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                pid = int(children[0])
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            # A command of the script may have failed.
            return None
        return pid if words[0] == sys.executable.encode() and HOLD.encode() in words else None


def make_world(folder: Path, families: Families) -> Holder:
    """Create the namespaces around all nodes, with the bridge between them; return their holder."""
    flags = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    world = Holder("world", folder, flags)
    try:
        _configure(
            world,
            f"link add {BRIDGE} type bridge",
            *(_address(family, family.world, BRIDGE) for family in families),
            f"link set {BRIDGE} up",
        )
        _forward(world, families)
    except BaseException:
        world.close()
        raise
    return world


def make_node(
    world: Holder, name: str, folder: Path, number: int, families: Families, group: NodeGroup
) -> Holder:
    """Create the namespaces of a node, connect it to the bridge, and return their holder.

    The node has its own /run and /sys/fs/bpf. Its /var/lib and /var/log are in the folder. Its
    control group must exist, and is mounted.
    """
    flags = ("--net", "--uts", "--mount", *group.namespaces)
    node = Holder(name, folder, flags, (*world.enter(), *group.enter_root()))
    group.leave_root(node.pid)
    places = (folder, group.folder, MOUNTED, group.root)
    node.run("sh", "-c", _MOUNTS, "mounts", *map(str, places))
    for sysctl, value in KUBELET_SYSCTLS.items():
        file = folder / "sysctls" / sysctl.replace("/", ".")
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{value}\n")
        node.run("mount", "--bind", str(file), f"/proc/sys/{sysctl}")
    subprocess.run(
        [
            *world.enter_network(),
            *("ip", "link", "add", name, "type", "veth"),
            *("peer", "name", "eth0", "netns", str(node.pid)),
        ],
        check=True,
    )
    _configure(world, f"link set {name} master {BRIDGE} up")
    _configure(
        node,
        *(_address(family, family.node(number), "eth0") for family in families),
        "link set eth0 up",
        # Without this route, the node's connections to Services would fail before any rule applies.
        *(f"route add {family.everything} via {family.world}" for family in families),
    )
    _forward(node, families)
    return node


def add_route(holder: Holder, pods: IPNetwork, node: IPAddress) -> None:
    """Add the route to a node's pods."""
    _configure(holder, f"route add {pods} via {node}")


# The script mounts over all folders outside the node's folder to which the node's programs write.
_MOUNTS = """\
set -e
mkdir -p "$1/lib" "$1/log"
mount --bind "$1/lib" /var/lib
mount --bind "$1/log" /var/log
mount -t tmpfs -o mode=755 run /run
mkdir "$3"
mount --bind "$2" "$3"
mount --bind "$2" "$4"
mount -t bpf bpf /sys/fs/bpf
"""


def _configure(holder: Holder, *lines: str) -> None:
    holder.run("ip", "-batch", "-", input="".join(f"{line}\n" for line in lines))


def _address(family: Family, ip: IPAddress, link: str) -> str:
    # An IPv6 address can be used only after duplicate address detection: one or two seconds.
    options = " nodad" if ip.version == 6 else ""
    return f"addr add {ip}/{family.lan.prefixlen} dev {link}{options}"


def _forward(holder: Holder, families: Families) -> None:
    for family in families:
        holder.run("sh", "-c", f"echo 1 >/proc/sys/{family.forwarding}")
