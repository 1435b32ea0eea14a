"""A node's control group of version 2, in which its programs and pods are, as on a machine.

    userspace-proxy-cluster-…/node-1   what hooks of its proxy are attached to
      ├─ programs                      containerd, kubelet, the proxy
      └─ k8s.io/…                      containers

runc makes a container's group below the root that it sees, so the group is mounted over the root.
Where there is version 2 alone, the node has a namespace of control groups, too, as a node of kind
has: its programs look for what /proc names. Beside version 1 that would hide the other trees.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.hooked import PROGRAMS, entering, root_of_v2

# Where the kernel has cgroups of the first version, one tree each; with the second, this itself.
CGROUPS = Path("/sys/fs/cgroup")
# Where containerd puts the containers of a kubelet that makes no groups itself.
GROUP = "k8s.io"
MOUNTED = Path("/run/cgroup")
"""Where the node sees it, too: a place that no other namespace has, which could lead to the root
of the machine."""


class NodeGroup:
    """The group of a node.

    Args:
        folder: The node's.
    """

    def __init__(self, folder: Path) -> None:
        root = root_of_v2()
        self.folder = root / folder.parent.name / folder.name
        self.root = root
        """Where the node sees it."""

    def make(self) -> None:
        (self.folder / PROGRAMS).mkdir(parents=True)
        if self._is_alone:
            # As runc does for the groups below: containers have limits.
            for parent in (self.root, self.folder.parent):
                for controller in (parent / "cgroup.controllers").read_text().split():
                    with suppress(OSError):
                        (parent / "cgroup.subtree_control").write_text(f"+{controller}")

    def enter_root(self) -> tuple[str, ...]:
        """Return the words before a command that makes the node's namespaces; they exec it."""
        return entering(self.folder)

    @property
    def namespaces(self) -> list[str]:
        """Flags of unshare(1)."""
        return ["--cgroup"] if self._is_alone else []

    def leave_root(self, pid: int) -> None:
        """Move the only process that was started there: a group with children has none."""
        (self.folder / PROGRAMS / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove it; idempotent.

        Raises:
            OSError: A process is still in it.
        """
        for folder in (self.folder / PROGRAMS, self.folder):
            with suppress(FileNotFoundError):
                folder.rmdir()
        # The other nodes' may be there.
        with suppress(OSError):
            self.folder.parent.rmdir()

    @property
    def _is_alone(self) -> bool:
        """Whether there is no version 1."""
        return self.root == CGROUPS
