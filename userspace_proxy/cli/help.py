"""What ``--help`` prints: commands, flags from the table of settings, examples, exit codes."""

from __future__ import annotations

import textwrap

from ..config.kinds import BOOL
from ..config.settings import TABLE, Settings
from ..config.table import Setting, Topic
from ..config.words import dashed

_WIDTH = 96
_INDENT = 34

_USAGE = """\
userspace-proxy: a Service proxy for Kubernetes that carries every connection through userspace

Usage:
  userspace-proxy [run] [flags]     serve the Services of this node (also without a command)
  userspace-proxy demo [--port=N]   a sandbox with backends, sample Services and the status page;
                                    needs no cluster
  userspace-proxy check [flags] [-o json]
                                    report what run with these flags would find:
                                    settings, Services, kernel, leftovers, firewalls;
                                    changes nothing
  userspace-proxy cleanup [flags]   remove all rules and routes of this program
  userspace-proxy --version

Examples:
  userspace-proxy demo
  userspace-proxy --manifests=services.yaml --steering=none
  userspace-proxy --kubeconfig=/etc/kubernetes/kubelet.conf --steering=iptables --v=2
  userspace-proxy --config=/var/lib/kube-proxy/config.conf --hostname-override=node-1
"""

_CODES = """\
kube-proxy's other flags are accepted; the log names those without effect once.
Flags win over the file, the file wins over defaults.

Exit codes: 0 done, 1 failed, 2 wrong usage
"""

_DEMO = """\
userspace-proxy demo: a sandbox with backends, four sample Services and the proxy, whose
status page is on 127.0.0.1. Needs no cluster, and no root where user namespaces are
allowed. It prints what to try, and ends with Ctrl-C.

Usage:
  userspace-proxy demo [--port=N]

Flags:
  --port N    port of the status page (10249 if it is free, else any free one)

Example:
  userspace-proxy demo --port=8080

Exit codes: 0 done, 1 failed, 2 wrong usage
"""


def help_text(command: str) -> str:
    """Return the help of a command, or with an empty name the program's."""
    if command == "demo":
        return _DEMO.rstrip()
    parts = [_USAGE]
    for topic in Topic:
        rows = [(name, row) for name, row in TABLE.items() if row.topic is topic]
        flags = "\n".join(_flag(name, row) for name, row in rows)
        parts.append(f"{topic}:\n{flags}\n")
    return "\n".join([*parts, _CODES]).rstrip()


def _default(name: str, row: Setting) -> str:
    """Return a default as shown in the help; empty for a switch, which is off."""
    if row.shown_default:
        return row.shown_default
    return row.kind.write_text(getattr(Settings(), name)) if row.kind is not BOOL else ""


def _flag(name: str, row: Setting) -> str:
    value = "" if row.kind is BOOL else f" {row.kind.name}"
    left = f"  {dashed('v') + ', ' if row.flag == 'v' else ''}--{row.flag}{value}"
    default = _default(name, row)
    text = f"{row.help} ({default})" if default else row.help
    lines = textwrap.wrap(text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False)
    if len(left) >= _INDENT - 1:
        return "\n".join([left, *(" " * _INDENT + line for line in lines)])
    rest = [" " * _INDENT + line for line in lines[1:]]
    return "\n".join([left.ljust(_INDENT) + lines[0], *rest])
