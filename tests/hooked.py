"""A separate cgroup for processes whose connect() calls a proxy may translate.

    /sys/fs/cgroup/…            cgroup v2, even if mounted beside v1
      └─ userspace-proxy-…      --socket-lb-cgroup: hooks affect only processes below it
           └─ programs          the processes

Rule 1: no hook is ever attached to the root, which contains all processes of this machine.
Rule 2: processes are in a leaf, so that the group can have children with controllers.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Sockets
from userspace_proxy.kernel.offers import try_parts
from userspace_proxy.steering.socket_lb.programs import find_cgroup
from userspace_proxy_testing.sandbox import SandboxNode

PROGRAMS = "programs"
"""The name of the leaf of a group."""
CLOSE_S = 20.0


class HookedGroup:
    """A new group, which exists until it is closed; also a context manager.

    Args:
        name: A name that is unique in this process.
        root: A mount point of cgroup v2; None for the existing one.

    Raises:
        OSError: This kernel has no cgroup v2, or this process may not create a group there.
    """

    def __init__(self, name: str, root: Path | None = None) -> None:
        self.folder = (root or root_of_v2()) / f"userspace-proxy-{os.getpid()}-{name}"
        self._programs = self.folder / PROGRAMS
        self._programs.mkdir(parents=True)

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix for a command that runs in the group; it execs the command."""
        return entering(self._programs)

    def close(self) -> None:
        """Kill the group's processes and remove it, with its hooks. Idempotent."""
        wait_for(f"the end of {self.folder}", self._is_removed, deadline_s=CLOSE_S)

    def _is_removed(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            for pid in (self._programs / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for folder in (*self.folder.glob("*/"), self.folder):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                # A killed process hasn't exited yet.
                return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def entering(group: Path) -> tuple[str, ...]:
    """Return the prefix for a command that runs in a group; it execs the command."""
    return ("sh", "-ec", 'echo 0 >"$0"; exec "$@"', str(group / "cgroup.procs"))


def root_of_v2() -> Path:
    """Return the mount point of cgroup v2.

    Raises:
        FileNotFoundError: It isn't mounted.
    """
    root = find_cgroup()
    if root is None:
        raise FileNotFoundError("cgroup v2 is not mounted")
    return root


def missing_feature() -> str:
    """Return the reason why hooks can't be attached here; empty if they can."""
    if any(try_parts(["connect hooks"]).values()):
        return "hooks of connect() need root, outside a user namespace"
    try:
        root_of_v2()
    except FileNotFoundError as exc:
        return str(exc)
    return ""


def with_own_names(command: Sequence[str]) -> list[str]:
    """Return a command that execs ``command`` in a mount namespace with its own bpffs."""
    script = 'mount -t bpf bpf /sys/fs/bpf; exec "$@"'
    return ["unshare", "--mount", "sh", "-ec", script, "with-own-names", *command]


def flags_for(group: Path) -> tuple[str, ...]:
    """Return the flags with which a proxy translates connect() in a group."""
    return ("--socket-lb=required", f"--socket-lb-cgroup={group}")


class HookedAgent(Agent):
    """An agent with hooks that translate dials by processes of its group.

    The caller must close the group.
    """

    def __init__(
        self, node: SandboxNode, sockets: Sockets, folder: Path, steering: str, *flags: str
    ) -> None:
        super().__init__(node, sockets, folder, steering, *flags)
        self.group = HookedGroup(folder.name)

    @property
    def command(self) -> list[str]:
        return with_own_names([*super().command, *flags_for(self.group.folder)])
