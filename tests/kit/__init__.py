"""Tests of the published fakes and of the pytest plugin."""
