"""Fixtures that create Service ports for the tests of scaling."""

from ..agent.conftest import make, plane

__all__ = ["make", "plane"]
