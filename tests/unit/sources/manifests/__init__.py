"""Tests of Services from files."""
