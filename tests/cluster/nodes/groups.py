"""A node's own cgroup v2 for its programs and pods, as on a real node.

    userspace-proxy-cluster-…/node-1   its proxy's hooks are attached here
      ├─ programs                      containerd, kubelet, the proxy
      └─ k8s.io/…                      containers

runc creates a container's group below the root that it sees, so the node's group is mounted over
the root. If only version 2 is mounted, the node also has a cgroup namespace, like a node of kind,
because its programs use the paths in /proc. With version 1, a cgroup namespace would hide the other
trees.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.hooked import PROGRAMS, entering, root_of_v2

# With cgroup version 1, the folder of all trees; with version 2, the single tree.
CGROUPS = Path("/sys/fs/cgroup")
# The group in which containerd puts containers if kubelet creates no groups.
GROUP = "k8s.io"
MOUNTED = Path("/run/cgroup")
"""The mount point on the node, a path that no other namespace has: otherwise it might be the
machine's root group."""


class NodeGroup:
    """A node's control group.

    Args:
        folder: The node's folder.
    """

    def __init__(self, folder: Path) -> None:
        root = root_of_v2()
        self.folder = root / folder.parent.name / folder.name
        self.root = root
        """The group's path on the node."""

    def make(self) -> None:
        (self.folder / PROGRAMS).mkdir(parents=True)
        if self._is_alone:
            # Enable the controllers, as runc does in the groups below: containers have limits.
            for parent in (self.root, self.folder.parent):
                for controller in (parent / "cgroup.controllers").read_text().split():
                    with suppress(OSError):
                        (parent / "cgroup.subtree_control").write_text(f"+{controller}")

    def enter_root(self) -> tuple[str, ...]:
        """Return a prefix that moves the creator of the node's namespaces into the group."""
        return entering(self.folder)

    @property
    def namespaces(self) -> list[str]:
        """The flag for unshare(1) that creates a cgroup namespace; empty if none is needed."""
        return ["--cgroup"] if self._is_alone else []

    def leave_root(self, pid: int) -> None:
        """Move the only process out of the root, which must be empty to have child groups."""
        (self.folder / PROGRAMS / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove the group; idempotent.

        Raises:
            OSError: A process is still in the group.
        """
        for folder in (self.folder / PROGRAMS, self.folder):
            with suppress(FileNotFoundError):
                folder.rmdir()
        # The parent also contains other nodes' groups.
        with suppress(OSError):
            self.folder.parent.rmdir()

    @property
    def _is_alone(self) -> bool:
        """Whether only cgroup version 2 is mounted."""
        return self.root == CGROUPS
