"""Resolver configuration for programs in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from userspace_proxy.names import CLUSTER_DOMAIN, NDOTS, search_list

_RESOLV_CONF = "/etc/resolv.conf"
_NSSWITCH = Path("/etc/nsswitch.conf")


def write_resolver_files(folder: Path, server: str, namespace: str) -> Mapping[str, Path]:
    """Write files with which programs resolve names by a DNS server, as in a pod of ``namespace``.

    Args:
        folder: The folder for the files.
        server: The server's IP address; its port is 53.

    Returns:
        The files by path, as for :meth:`.Namespace.prefix_with_files`.
    """
    resolv = folder / "resolv.conf"
    search = " ".join(search_list(namespace, CLUSTER_DOMAIN))
    resolv.write_text(f"nameserver {server}\nsearch {search}\noptions ndots:{NDOTS}\n")
    files = {_RESOLV_CONF: resolv}
    if _NSSWITCH.exists():
        # Leave out systemd's module, which would query the machine's resolved instead of the server
        # above.
        lines = _NSSWITCH.read_text().splitlines()
        kept = [line for line in lines if not line.startswith("hosts:")]
        (folder / "nsswitch.conf").write_text("\n".join([*kept, "hosts: files dns", ""]))
        files[str(_NSSWITCH)] = folder / "nsswitch.conf"
    return files
