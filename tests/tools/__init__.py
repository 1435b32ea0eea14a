"""Checks that make runs, and their tests."""
