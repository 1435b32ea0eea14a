"""Choosing a proxy; ``tests/cluster/test_kubeconfig.py`` runs kubectl on the same table."""

from __future__ import annotations

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.proxies import (
    WebProxy,
    choose_proxy,
    is_excluded,
    proxy_of_environment,
    read_proxy,
)

from .proxy_table import ADDRESS, CHOICES, EXCLUSIONS, PROXY


@pytest.mark.parametrize(("server", "no_proxy", "expected"), EXCLUSIONS)
def test_no_proxy_excludes_matching_servers(server, no_proxy, expected):
    proxy = proxy_of_environment(server, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})
    assert (proxy is None) is expected


@pytest.mark.parametrize(("server", "environment", "expected"), CHOICES)
def test_the_proxy_is_selected_by_the_environment_variable_of_the_scheme(
    server, environment, expected
):
    proxy = proxy_of_environment(server, environment)
    assert (proxy is not None) is expected
    if proxy is not None:
        assert (proxy.host, proxy.port) == ("127.0.0.2", 3128)


def test_an_internationalized_name_is_compared_in_its_dns_form():
    assert is_excluded("xn--bcher-kva.test", "443", "bücher.test")
    assert is_excluded("www.xn--bcher-kva.test", "443", "BÜCHER.test")
    assert not is_excluded("a.test", "443", "ü" * 70)


def problem_of(server: str, environment: dict[str, str]) -> str:
    with pytest.raises(SourceError) as caught:
        proxy_of_environment(server, environment)
    return str(caught.value)


def test_an_invalid_proxy_url_is_rejected_with_its_variable():
    for text in (
        "http://[::1",
        "http://a b",
        "http://127.0.0.2:99999",
        "http://127.0.0.2:0",
        "http://:80",
        "http://%zz@a",
    ):
        assert problem_of(ADDRESS, {"HTTPS_PROXY": text}) == (
            "cannot use HTTPS_PROXY: it is not the URL of a proxy (write it as http://10.0.0.1:3128)"
        )
    assert proxy_of_environment(ADDRESS, {"HTTPS_PROXY": "http://[", "NO_PROXY": "*"}) is None
    assert problem_of(ADDRESS, {"https_proxy": "ftp://a:21"}) == (
        "cannot use https_proxy: the scheme 'ftp' is not supported "
        "(one of http, https, socks5, socks5h)"
    )
    assert "this is a CGI program" in problem_of(
        "http://10.9.8.7", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}
    )


def test_the_kubeconfigs_proxy_takes_precedence():
    environment = {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}
    proxy = choose_proxy(ADDRESS, "socks5://u%40:p%3a@[fd00::2]", "k:3: proxy-url", environment)
    assert proxy == WebProxy("socks5", "fd00::2", 1080, "u%40:p%3a", "k:3: proxy-url")
    assert proxy.is_socks
    assert proxy.credentials == ("u@", "p:")
    assert proxy.url == "socks5://u%40:p%3a@[fd00::2]:1080"
    assert str(proxy) == "the proxy socks5://[fd00::2]:1080 of k:3: proxy-url"
    assert choose_proxy(ADDRESS, "", "", {"HTTPS_PROXY": PROXY}) == WebProxy(
        "http", "127.0.0.2", 3128, None, "HTTPS_PROXY"
    )


def test_the_password_in_a_proxy_url_may_contain_an_at_sign():
    proxy = proxy_of_environment(ADDRESS, {"HTTPS_PROXY": "http://u:p@x@127.0.0.2:3128"})
    assert proxy is not None
    assert (proxy.host, proxy.credentials) == ("127.0.0.2", ("u", "p@x"))


def test_a_proxy_without_a_user_has_no_credentials():
    proxy = read_proxy("https://a.test", "")
    assert proxy is not None
    assert (proxy.credentials, proxy.port, proxy.is_socks) == (None, 443, False)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("127.0.0.1:3128", "is not the URL of a proxy (write it as http://10.0.0.1:3128)"),
        ("http://", "is not the URL of a proxy"),
        ("socks5h://a", "the scheme 'socks5h' is not supported (one of http, https, socks5)"),
        ("ftp://a", "the scheme 'ftp' is not supported"),
    ],
)
def test_an_invalid_proxy_url_in_a_kubeconfig_is_rejected_with_its_line(url, problem):
    with pytest.raises(SourceError) as caught:
        choose_proxy(ADDRESS, url, "k:3: proxy-url", {})
    assert str(caught.value).startswith(f"cannot use kubeconfig k:3: proxy-url: {problem}")
