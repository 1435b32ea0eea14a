"""Tests of the package's ``balance``."""
