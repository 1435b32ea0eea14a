"""Tests of the package's ``diagnosis``."""
