"""Checks run by make, and their tests."""
