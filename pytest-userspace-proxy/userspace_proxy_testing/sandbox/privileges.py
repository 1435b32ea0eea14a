"""Checks whether namespaces can be created here; if not, names the cause and the remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from userspace_proxy.errors import SandboxError
from userspace_proxy.kernel.privileges import CAP_NET_ADMIN, forbidding
from userspace_proxy.linux import require_own_files

# Directories appended to PATH: Debian has ip in /usr/sbin, which an unprivileged user's PATH may
# lack.
SBIN = "/usr/sbin:/sbin"
TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}

CAP_SYS_ADMIN = 21


def tool_path() -> str:
    """Return the PATH for the sandbox's tools."""
    return f"{os.environ.get('PATH', os.defpath)}:{SBIN}"


def require_tools(path: str) -> None:
    """Check that the tools are installed.

    Raises:
        SandboxError: A tool is missing (the hint names its Debian package), or files aren't this
            machine's, such as with pyfakefs.
    """
    require_own_files("cannot create a sandbox")
    for tool, package in TOOLS.items():
        if shutil.which(tool, path=path) is None:
            raise SandboxError(
                f"cannot create a sandbox: the program {tool} is missing",
                hint=f"apt-get install {package}",
            )


def needs_user_namespace(capabilities: int) -> bool:
    """Return whether a process with these capabilities needs a user namespace."""
    return not all(capabilities >> cap & 1 for cap in (CAP_SYS_ADMIN, CAP_NET_ADMIN))


def explain_refusal(said: str, *, rootless: bool, sysctls: Mapping[str, str]) -> SandboxError:
    """Return the error to raise if a namespace couldn't be created.

    Args:
        said: The tool's output, such as ``unshare: unshare failed: Operation not permitted``.
        rootless: Whether a user namespace was requested.
        sysctls: The result of :func:`.read_sysctls`.
    """
    cause = said.strip().splitlines()[-1] if said.strip() else "no reason given"
    if "/proc/sys/" in cause:
        return SandboxError(
            f"cannot set up a network namespace: {cause}",
            hint="/proc/sys must be writable: in a container, run it privileged",
        )
    if not rootless:
        return SandboxError(
            f"cannot create a network namespace: {cause}",
            hint="grant CAP_SYS_ADMIN and CAP_NET_ADMIN, or check user.max_net_namespaces",
        )
    if found := forbidding(sysctls):
        name, value, allowed = found
        return SandboxError(
            f"cannot create a user namespace: {cause}; {name} is {value}",
            hint=f"as root: sysctl -w {name}={allowed}; or run this as root",
        )
    return SandboxError(
        f"cannot create a user namespace: {cause}",
        hint="a container's seccomp filter or a chroot may forbid it: run privileged, or as root",
    )
