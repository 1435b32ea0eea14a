"""The pytest plugin: Services for tests, without a cluster, root or Docker.

    def test_a_dead_backend_fails_no_request(service_proxy):
        web = service_proxy.service("web", backends=2)
        web.backends[0].stop()
        assert urlopen(web.url).status == 200

    def test_its_name_resolves(service_network):
        service_network.service("web")
        assert service_network.client().get("http://web/").status == 200

    def test_a_service_of_envtest_answers(kubernetes_services):
        web = kubernetes_services["shop/web"]
        web.pods = {"web-1": None}
        assert urlopen(web.url).status == 200

Every run of pytest in an environment with this package loads it, so it imports the proxy only when
a test uses it.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import pytest

from userspace_proxy.errors import PlatformError, SandboxError, UserspaceProxyError
from userspace_proxy.linux import is_linux, require_linux, require_own_threads

if TYPE_CHECKING:
    from userspace_proxy.sources.kubernetes.kubeconfig_files import Kubeconfig

    from .kubernetes_services import KubernetesServices
    from .record import RecordedFixture, RecordedTest
    from .report import Reported
    from .service_network import ServiceNetwork
    from .service_proxy import ServiceProxy

_OPEN = pytest.StashKey["list[tuple[str, Reported]]"]()
"""The running fixtures, each with its name."""
_ENDED = pytest.StashKey["list[RecordedFixture]"]()
"""The ended fixtures of this test, in their last state; empty unless failed tests are recorded."""
_RECORD = pytest.StashKey["tuple[RecordedTest, Path | None]"]()
"""The record of a failed test, and its file; None if it couldn't be written."""
_RECORD_TITLE = "service proxy record"
_CANNOT = "cannot write to"
_SKIPS_MODULES = pytest.StashKey[bool]()
"""Whether a test module is skipped because it imports a proxy that can't run here."""
_BLOCKED = ("SocketBlockedError", "SocketConnectBlockedError")
_UNBLOCK = (
    "(pytest-socket: mark the test with enable_socket, and write --allow-hosts=127.0.0.0/8,::1; a "
    "service_network needs 10.96.0.0/12, too)"
)
_REPLACED = (
    "has replaced subprocess.Popen, which starts commands and networks (start these before, or let "
    "it start other programs, as by allow_unregistered(True) of pytest-subprocess)"
)
_FIXTURES = frozenset({"service_proxy", "service_network", "kubernetes_services"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("service proxy")
    group.addoption(
        "--service-proxy-scope",
        choices=("function", "session"),
        default="function",
        help="whether each test gets a proxy or network of its own (function), or all tests share "
        "one (session)",
    )
    group.addoption(
        "--service-proxy-kubeconfig",
        metavar="PATH",
        help="the cluster whose Services kubernetes_services serves, instead of KUBECONFIG",
    )
    what = "fail instead of skipping a test where this machine lacks what a fixture needs"
    group.addoption("--service-proxy-require", action="store_true", help=what)
    parser.addini("service_proxy_require", what, type="bool", default=False)
    what = "write a JSON file to DIR for each failed test that used a fixture of the service proxy"
    group.addoption("--service-proxy-record", metavar="DIR", default="", help=what)
    parser.addini("service_proxy_record", what, type="string", default="")


def skip(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    """Skip the test that requests a fixture; fail it if skips are forbidden.

    Args:
        reason: The requirement that isn't met, with the remedy.
    """
    text = f"{request.fixturename}: {reason}"
    # Raise this without the cause, which pytest would print, too.
    if _is_required(request.config):
        raise pytest.fail.Exception(text, pytrace=False) from None
    raise pytest.skip.Exception(text) from None


@contextlib.contextmanager
def _able(request: pytest.FixtureRequest) -> Iterator[None]:
    """Skip the test if this machine lacks a requirement; fail it on other errors."""
    try:
        require_own_threads()
        # If sockets are blocked, the event loop's creation would fail half-way.
        socket.socket().close()
        yield
    except (PlatformError, SandboxError) as exc:
        skip(request, str(exc))
    except UserspaceProxyError as exc:
        problem = str(exc)
    except RuntimeError as exc:
        if type(exc).__name__ not in _BLOCKED:
            raise
        problem = f"{exc} {_UNBLOCK}"
    else:
        return
    raise pytest.fail.Exception(f"{request.fixturename}: {problem}", pytrace=False) from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip a test of these fixtures that raises PlatformError; fail it if skips are forbidden."""
    try:
        return (yield)
    except PlatformError as exc:
        if _FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            raise
        kind = pytest.fail if _is_required(item.config) else pytest.skip
        raise kind.Exception(f"service proxy: {exc}") from None


def _is_required(config: pytest.Config) -> bool:
    option: bool = config.getoption("--service-proxy-require")
    ini: bool = config.getini("service_proxy_require")
    return option or ini


def _scope(fixture_name: str, config: pytest.Config) -> Literal["function", "session"]:
    """Return the scope that the option selects."""
    scope: Literal["function", "session"] = config.getoption("--service-proxy-scope")
    return scope


@pytest.fixture(scope=_scope)
def service_proxy(request: pytest.FixtureRequest) -> Iterator[ServiceProxy]:
    """Start a proxy; ``service_proxy.service("web", port=80, backends=2)`` serves a Service."""
    with _able(request):
        from .service_proxy import ServiceProxy

        proxy = ServiceProxy()
        proxy.start()
    with contextlib.closing(proxy), _reported(request, proxy):
        yield proxy


@pytest.fixture(scope=_scope)
def service_network(request: pytest.FixtureRequest) -> Iterator[ServiceNetwork]:
    """Start a network of namespaces; ``service_network.client()`` reaches its Services."""
    with _able(request):
        from .service_network import ServiceNetwork

        network = ServiceNetwork()
        network.start()
    with contextlib.closing(network), _reported(request, network):
        yield network


@pytest.fixture(scope="session")
def service_proxy_kubeconfig(request: pytest.FixtureRequest) -> str | Kubeconfig:
    """Return the kubeconfig of ``kubernetes_services``; override it if a test starts a cluster.

    The result is empty if there is no kubeconfig.
    """
    given: str | None = request.config.getoption("--service-proxy-kubeconfig")
    if given or not os.environ.get("KUBECONFIG"):
        return given or ""
    from userspace_proxy.sources.kubernetes.kubeconfig_files import find_kubeconfig

    return find_kubeconfig() or ""


@pytest.fixture(scope=_scope)
def kubernetes_services(
    request: pytest.FixtureRequest,
    service_proxy_kubeconfig: str | os.PathLike[str] | Kubeconfig,
) -> Iterator[KubernetesServices]:
    """Serve the Services of a cluster; ``kubernetes_services["shop/web"]`` is one of them."""
    kubeconfig = service_proxy_kubeconfig
    if isinstance(kubeconfig, os.PathLike):
        kubeconfig = os.fspath(kubeconfig)
    if not kubeconfig:
        skip(
            request,
            "no cluster (give --service-proxy-kubeconfig=PATH, set KUBECONFIG, or override the "
            "fixture service_proxy_kubeconfig)",
        )
    with _able(request):
        from .kubernetes_services import KubernetesServices, UsedServices

        services = KubernetesServices(kubeconfig)
        services.start()
    with contextlib.closing(services), _reported(request, UsedServices(services)):
        yield services


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test that uses one of these fixtures, unless another plugin has run it."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function) or _FIXTURES.isdisjoint(pyfuncitem.fixturenames):
        return None
    import asyncio

    parameters = inspect.signature(function).parameters
    values = pyfuncitem.funcargs
    asyncio.run(function(**{name: values[name] for name in parameters if name in values}))
    return True


@contextlib.contextmanager
def _reported(request: pytest.FixtureRequest, services: Reported) -> Iterator[None]:
    """Include these Services in the reports of tests that fail in this block."""
    assert request.fixturename is not None, "a fixture requests it"
    entry = (request.fixturename, services)
    stash = request.config.stash
    running = stash.setdefault(_OPEN, [])
    running.append(entry)
    try:
        yield
    finally:
        running.remove(entry)
        if _record_folder(request.config) is not None:
            from .record import take

            # A failed teardown is reported only after the Services are gone.
            stash.setdefault(_ENDED, []).append(take(*entry))


def _programs_replaced_by(failure: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the module that replaced ``Popen`` if a call into the kit failed; otherwise empty."""
    popen = getattr(sys.modules.get("subprocess"), "Popen", None)
    module = str(getattr(popen, "__module__", "subprocess"))
    callers = (str(entry.frame.f_globals.get("__name__")) for entry in failure.traceback)
    is_of_kit = any(name.startswith(f"{__package__}.") and name != __name__ for name in callers)
    return module if is_of_kit and module != "subprocess" else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add Services and their last connections to the report of a failed test."""
    report = yield
    stash = item.config.stash
    if call.when == "setup" and _RECORD in item.stash:
        # The test is rerun: drop the earlier run's record, because the new run has its own.
        del item.stash[_RECORD]
    running, ended = stash.get(_OPEN, []), stash.get(_ENDED, [])
    if call.when == "teardown":
        stash[_ENDED] = []
    if call.excinfo is not None and call.excinfo.typename in _BLOCKED and _uses_fixture(item):
        report.sections.append(("service proxy", f"{call.excinfo.value} {_UNBLOCK}"))
    if call.excinfo is not None and (library := _programs_replaced_by(call.excinfo)):
        report.sections.append(("service proxy", f"{library} {_REPLACED}"))
    if report.failed and (running or ended):
        from .record import take

        fixtures = [*ended, *(take(*entry) for entry in running)]
        report.sections += [(fixture.title, fixture.report) for fixture in fixtures]
        if _uses_fixture(item):
            _record(item, call, report, fixtures)
    return report


def _uses_fixture(item: pytest.Item) -> bool:
    # A session-scoped fixture also runs during tests that don't request it; leave these tests
    # alone.
    requested: list[str] = getattr(item, "fixturenames", [])
    return _scope("", item.config) == "function" or not _FIXTURES.isdisjoint(requested)


def _record_folder(config: pytest.Config) -> Path | None:
    """Return the folder for records of failed tests; None if they aren't recorded."""
    option: str = config.getoption("--service-proxy-record")
    if option:
        return config.invocation_params.dir / option
    ini: str = config.getini("service_proxy_record")
    return config.rootpath / ini if ini else None


def _record(
    item: pytest.Item,
    call: pytest.CallInfo[None],
    report: pytest.TestReport,
    fixtures: list[RecordedFixture],
) -> None:
    """Write a failed test's record if a folder is configured; the report names the file."""
    folder = _record_folder(item.config)
    if folder is None:
        return
    from . import record

    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    test: RecordedTest
    test, path = item.stash.get(_RECORD, (record.RecordedTest(item.nodeid, worker), None))
    failure = record.RecordedFailure(call.when, call.stop, report.longreprtext, fixtures)
    test.failures.append(failure)
    try:
        path = record.write(folder, test, path)
        line = str(path)
    except Exception as exc:  # noqa: BLE001 - it would end the whole run
        line = f"{_CANNOT} {folder}: {getattr(exc, 'strerror', None) or exc}"
    item.stash[_RECORD] = test, path
    report.sections.append((_RECORD_TITLE, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print where failed tests are recorded, or why they aren't."""
    reports = [report for some in terminalreporter.stats.values() for report in some]
    sections = [section for report in reports for section in getattr(report, "sections", ())]
    texts = {text for title, text in sections if title == _RECORD_TITLE}
    problems = {text for text in texts if text.startswith(_CANNOT)}
    folders = Counter(str(Path(path).parent) for path in texts - problems)
    lines = [f"{count} recorded in {folder}" for folder, count in sorted(folders.items())]
    for line in (*lines, *sorted(problems)):
        terminalreporter.line(f"service proxy: failed tests: {line}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """If no proxy can run, skip modules that import one; if skips are forbidden, fail all users."""
    report = yield
    if is_linux():
        return report
    call: pytest.CallInfo[object] | None = getattr(report, "call", None)
    error = call.excinfo.value if call is not None and call.excinfo is not None else None
    problem = str(error) if isinstance(error, PlatformError) else ""
    if problem and not _is_required(collector.config):
        collector.config.stash[_SKIPS_MODULES] = True
        report.outcome = "skipped"
        report.longrepr = (str(collector.path), 0, f"Skipped: {problem}")
        # With ``call``, pytest would treat this report as a failure and enter its debugger, so
        # remove it.
        report.__dict__.pop("call")
    elif _is_required(collector.config):
        needed = sorted({name for node in report.result for name in _fixtures_of(node)})
        problem = problem or (f"{', '.join(needed)}: {_lack()}" if needed else "")
        if problem:
            report.outcome, report.longrepr = "failed", problem
    return report


def pytest_report_collectionfinish(
    config: pytest.Config, items: Sequence[pytest.Item]
) -> str | list[str]:
    """If no proxy can run here, state once why tests are skipped."""
    if is_linux() or not (config.stash.get(_SKIPS_MODULES, False) or any(map(_fixtures_of, items))):
        return []
    return f"service proxy: tests that need it are skipped: {_lack()}"


def _fixtures_of(node: object) -> frozenset[str]:
    """Return this plugin's fixtures that a test requests, directly or through other fixtures."""
    return _FIXTURES.intersection(node.fixturenames if isinstance(node, pytest.Function) else ())


def _lack() -> str:
    """Return why no proxy can run here; empty if one can."""
    try:
        require_linux()
    except PlatformError as exc:
        return str(exc)
    return ""
