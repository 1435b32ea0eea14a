"""Variables that are removed for programs in a network without an uplink."""

from __future__ import annotations

import pytest

from userspace_proxy_testing.sandbox.environment import without_proxies


def test_http_proxy_variables_are_removed():
    names = ("http_proxy", "HTTPS_PROXY", "All_Proxy", "no_proxy", "NO_PROXY", "ftp_proxy")
    environment = {"PATH": "/bin", "MY_PROXY": "x", **dict.fromkeys(names, "http://proxy:3128")}
    assert without_proxies(environment) == {"PATH": "/bin", "MY_PROXY": "x"}


def test_the_environment_lacks_proxy_variables_and_is_otherwise_inherited(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("OTHER", "x")
    found = without_proxies()
    assert "http_proxy" not in found
    assert found["OTHER"] == "x"
