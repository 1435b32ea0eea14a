"""Defines the inputs and results of checks of the code's form."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PACKAGE = "userspace_proxy"
CLIENT = "kubectl-userspace-proxy/userspace_proxy_kubectl"
KIT = "pytest-userspace-proxy/userspace_proxy_testing"

Files = Mapping[str, Sequence[ast.AST]]
"""The syntax nodes of each file, by its path."""


@dataclass(frozen=True, order=True)
class Problem:
    """One violation of a rule, in one file."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"

    @property
    def without_line(self) -> str:
        """The problem without its line number, in the form of NOT_YET."""
        return f"{self.path}: {self.what}"
