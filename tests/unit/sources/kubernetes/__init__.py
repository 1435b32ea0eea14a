"""Tests of Services from an API server: the fake that the package publishes."""
