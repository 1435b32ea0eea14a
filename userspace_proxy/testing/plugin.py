"""The pytest plugin: Services for tests, without a cluster, root or Docker.

    def test_a_dead_backend_costs_no_request(service_proxy):
        web = service_proxy.service("web", backends=2)
        web.backends[0].stop()
        assert urlopen(web.url).status == 200

It is loaded by every run of pytest in an environment that contains this package, so it imports the
proxy only when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest

from ..errors import PlatformError

if TYPE_CHECKING:
    from .service_proxy import ServiceProxy

_PROXIES = pytest.StashKey["list[ServiceProxy]"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add this plugin's options."""
    group = parser.getgroup("service proxy")
    group.addoption(
        "--service-proxy-scope",
        choices=("function", "session"),
        default="function",
        help="whether each test gets a proxy of its own (function), or all share one (session)",
    )
    what = "fail instead of skipping a test where this machine lacks what a fixture needs"
    group.addoption("--service-proxy-require", action="store_true", help=what)
    parser.addini("service_proxy_require", what, type="bool", default=False)


def skip(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    """Skip the test that requests a fixture, or fail it if skips are forbidden.

    Args:
        reason: What is missing, and the remedy.
    """
    is_required = request.config.getoption("--service-proxy-require")
    if is_required or request.config.getini("service_proxy_require"):
        pytest.fail(f"{request.fixturename}: {reason}", pytrace=False)
    pytest.skip(f"{request.fixturename}: {reason}")


def _scope(fixture_name: str, config: pytest.Config) -> Literal["function", "session"]:
    """Return the scope that the option sets."""
    scope: Literal["function", "session"] = config.getoption("--service-proxy-scope")
    return scope


@pytest.fixture(scope=_scope)
def service_proxy(request: pytest.FixtureRequest) -> Iterator[ServiceProxy]:
    """Start a proxy; ``service_proxy.service("web", port=80, backends=2)`` serves a Service."""
    try:
        from .service_proxy import ServiceProxy
    except PlatformError as exc:
        skip(request, str(exc))

    proxies = request.config.stash.setdefault(_PROXIES, [])
    with ServiceProxy() as proxy:
        proxies.append(proxy)
        try:
            yield proxy
        finally:
            proxies.remove(proxy)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the Services and their last connections to the report of a test that failed."""
    report = yield
    proxies = item.config.stash.get(_PROXIES, [])
    if report.failed and proxies:
        from .report import describe

        for proxy in proxies:
            report.sections.append(("service proxy", describe(proxy)))
    return report
