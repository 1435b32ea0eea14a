"""Tests of Services from an API server, usually the test kit's fake."""
