"""Tests of the sources of Services: files, memory, and a fake API server."""
