"""Tests of userspace_proxy/status; the servers listen on any free port of 127.0.0.1."""
