"""Findings of ``userspace-proxy check`` about settings, Services and this node.

    settings ─▶ probes, each reads one thing ─▶ judges, pure ─▶ Finding: ok, warning or error

Rule 1: nothing in the kernel is changed; what would be made by looking isn't looked at.
Rule 2: a judge takes values and returns findings, so that its words can be tested without a node.
Rule 3: each finding that isn't well says what, where, and the way out.
"""

from .checks import check_node, check_settings, log_findings
from .finding import Finding, Mark, worst

__all__ = ["Finding", "Mark", "check_node", "check_settings", "log_findings", "worst"]
