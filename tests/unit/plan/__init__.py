"""Tests of the package's ``plan``."""
