"""Tests of the package's ``cluster``."""
