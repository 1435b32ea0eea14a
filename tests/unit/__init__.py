"""Unit tests, at the paths of the tested modules: no network, no privileges, no sleep."""
