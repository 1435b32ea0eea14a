"""Tests of the test kit: the pytest plugin, Services, fakes, the sandbox and the demo."""
