"""Collects findings about settings, Services and this node for ``userspace-proxy check``.

    settings ─▶ probes, each of one subject ─▶ judges, pure ─▶ Finding: ok, warning or error

Rule 1: a check never changes the kernel, not even by queries that would load a module.
Rule 2: a judge takes values and returns findings, so that it can be tested without a node.
Rule 3: each warning and error states the problem and, if known, its place and the remedy.
"""

from .checks import check_node, check_settings, log_findings
from .finding import Finding, Mark, worst

__all__ = ["Finding", "Mark", "check_node", "check_settings", "log_findings", "worst"]
