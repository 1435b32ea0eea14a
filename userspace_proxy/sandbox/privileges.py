"""Checks whether namespaces can be created here; if not, names the cause and the remedy."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import SandboxError

# Debian keeps ip in /usr/sbin, which an unprivileged user's PATH may lack.
SBIN = "/usr/sbin:/sbin"
TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21

# Each that can forbid a user namespace: the value that does, and one that allows it.
SYSCTLS = {
    "user.max_user_namespaces": ("0", "15000"),
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
}


def tool_path() -> str:
    """Return the PATH in which the sandbox's tools are looked for."""
    return f"{os.environ.get('PATH', os.defpath)}:{SBIN}"


def require_tools(path: str) -> None:
    """Check that the tools are there.

    Raises:
        SandboxError: One is missing; the hint names its Debian package.
    """
    for tool, package in TOOLS.items():
        if shutil.which(tool, path=path) is None:
            raise SandboxError(
                f"cannot create a sandbox: the program {tool} is missing",
                hint=f"apt-get install {package}",
            )


def needs_user_namespace(status: str) -> bool:
    """Tell whether a process may make network namespaces only inside a user namespace.

    Args:
        status: The text of ``/proc/self/status``.
    """
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return not all(effective >> cap & 1 for cap in (CAP_SYS_ADMIN, CAP_NET_ADMIN))


def read_sysctls(proc_sys: Path = Path("/proc/sys")) -> dict[str, str]:
    """Return those of ``SYSCTLS`` that this kernel has, with their values."""
    values = {}
    for name in SYSCTLS:
        path = proc_sys.joinpath(*name.split("."))
        if path.exists():
            values[name] = path.read_text(encoding="ascii").strip()
    return values


def explain_refusal(said: str, *, rootless: bool, sysctls: Mapping[str, str]) -> SandboxError:
    """Return the error for a namespace that could not be made.

    Args:
        said: What the tool wrote, such as ``unshare: unshare failed: Operation not permitted``.
        rootless: Whether a user namespace was asked for.
        sysctls: What ``read_sysctls`` found.
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
    for name, (forbids, allows) in SYSCTLS.items():
        if sysctls.get(name) == forbids:
            return SandboxError(
                f"cannot create a user namespace: {cause}; {name} is {forbids}",
                hint=f"as root: sysctl -w {name}={allows}; or run this as root",
            )
    return SandboxError(
        f"cannot create a user namespace: {cause}",
        hint="a container's seccomp filter or a chroot may forbid it: run privileged, or as root",
    )
