"""Tests of the package's ``policy``."""
