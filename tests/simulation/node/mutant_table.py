"""All mutants of a whole node."""

from __future__ import annotations

from .mutants_of_node import MUTANTS

__all__ = ["MUTANTS"]
