"""The records of failed tests, in separate runs of pytest."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from userspace_proxy_testing.record import RecordedTest, take, write
from userspace_proxy_testing.service_proxy import ServiceProxy

from .test_plugin import GET, PLUGIN

pytest_plugins = ["pytester"]

RECORD = "--service-proxy-record=out"
FAILS = """
import pytest

@pytest.mark.parametrize("what", ["a/b", "a b", "../../etc", "ü" * 300])
def test_an_assertion_fails(service_proxy, what):
    service_proxy.service("web")
    assert 0
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Return a function that runs a test file with the plugin in a subprocess."""
    # This process may be a worker of pytest-xdist; the subprocess isn't one.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(text, *arguments):
        pytester.makepyfile(GET + text)
        return pytester.runpytest_subprocess(*PLUGIN, *arguments)

    return run


@pytest.fixture
def records(pytester):
    """Return a function that reads the records in a folder, sorted by file name."""

    def records(folder="out"):
        files = sorted((pytester.path / folder).glob("*.json"))
        return [json.loads(file.read_text()) for file in files]

    return records


SHOP = """
def test_a_shop_saves_seven_connections(service_proxy):
    web = service_proxy.service("web", backends=3, balance="random", seed=7, hold="60s")
    idle = service_proxy.service("idle", namespace="shop")
    web.backends[0].stop()
    web.backends[1].fault("refuse")
    assert [get(web) for _ in range(2)] == ["web-3"] * 2
    web.eventually(lambda web: len(web.decisions) == 2)
    web.drain(web.backends[2])
    assert web.stats.saved == 7

def test_a_service_answers(service_proxy):
    get(service_proxy.service("web"))

def test_a_test_without_the_fixture_fails():
    assert 0
"""


PHASES = """
import pytest

@pytest.fixture
def shop(service_proxy, request):
    service_proxy.service("shop")
    assert "setup" not in request.node.name
    yield
    assert "teardown" not in request.node.name

@pytest.mark.parametrize("fails_in", ["setup", "teardown", "call-teardown"])
def test_a_shop_is_set_up_and_torn_down(shop, fails_in):
    assert "call" not in fails_in
"""
LEFT_BEHIND = """
import socket

def test_a_listener_takes_over_the_address(service_proxy):
    web = service_proxy.service("web")
    # The listener below takes the address, as another program might, and accepts after the end.
    web.backends[0].stop()
    global listener
    listener = socket.create_server(web.backends[0].address)

def test_another_test_fails(service_proxy):
    assert 0
"""
CLOSED = "def test_proxy_closes(service_proxy):\n    service_proxy.close()\n    assert 3 == 4\n"


class Recorded(NamedTuple):
    """A run of pytest with records."""

    folder: Path
    printed: str

    def of(self, name):
        """Return the record of one test."""
        (found,) = (one for one in self.all() if one["test"].endswith(f"::{name}"))
        return found

    def all(self):
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("*.json"))]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One run with all kinds of failures, because pytest takes a second to start."""
    folder = tmp_path_factory.mktemp("recorded")
    for n, text in enumerate((SHOP, PHASES, LEFT_BEHIND, CLOSED, FAILS)):
        (folder / f"test_{n}.py").write_text(GET + text)
    env = {name: os.environ[name] for name in os.environ.keys() - {"PYTEST_XDIST_WORKER"}}
    command = [sys.executable, "-m", "pytest", *PLUGIN, RECORD, f"--rootdir={folder}"]
    done = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, text=True, timeout=250
    )
    return Recorded(folder / "out", done.stdout)


def test_only_failed_tests_are_recorded(recorded):
    counts = "9 failed, 3 passed, 4 errors"
    assert re.search(rf"(?m)^=* ?{counts} in ", recorded.printed), recorded.printed
    assert f"failed tests: 11 recorded in {recorded.folder}\n" in recorded.printed
    names = [path.name for path in recorded.folder.iterdir()]
    form = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{,200}-[0-9a-f]{8}\.json")
    assert [name for name in names if not form.fullmatch(name)] == []
    assert len({found["test"] for found in recorded.all()}) == len(names) == 11


def test_a_record_contains_the_services_of_the_test(recorded):
    found = recorded.of("test_a_shop_saves_seven_connections")
    (failure,) = found["failures"]
    (fixture,) = failure["fixtures"]
    web, idle = fixture["services"]
    names = {one["address"]: one["name"] for one in web["backends"]}
    assert (found["version"], found["worker"], failure["when"]) == (1, "", "call")
    assert "assert 1 == 7" in failure["text"]
    assert fixture["fixture"] == "service_proxy"
    assert f"default/web: backends web-1 at {web['backends'][0]['address']}" in fixture["report"]
    assert (web["service"], idle["service"]) == ("default/web", "shop/idle")
    assert web["settings"] == {"balance": "random", "seed": 7, "hold": "60s"}
    assert (web["seed"], idle["seed"], idle["settings"]) == (7, 0, {})
    assert [one["state"] for one in web["backends"]] == ["stopped", "", "draining"]
    assert web["faults"] == {"web-2": ["refuse"]}
    assert web["address"] == web["ports"][0]["frontends"][0]["address"]
    assert (web["ports"][0]["saved"], web["ports"][0]["connections"]) == (1, 2)
    first, second = web["connections"]
    causes = {names[dial["endpoint"]]: dial["cause"] for dial in first["failed_dials"]}
    assert causes == {"web-1": "endpoint-refuses", "web-2": "fault-on-purpose"}
    assert (names[first["endpoint"]], first["dials"], first["outcome"]) == ("web-3", 3, "complete")
    assert first["began_at"] <= second["began_at"] <= failure["time"]
    assert (second["failed_dials"], second["dials"]) == ([], 1)
    assert min(first["received_bytes"], first["sent_bytes"]) > 0
    assert idle["connections"] == []


@pytest.mark.parametrize("failed", [["setup"], ["teardown"], ["call", "teardown"]])
def test_each_failure_in_setup_call_or_teardown_is_recorded(recorded, failed):
    found = recorded.of(f"test_a_shop_is_set_up_and_torn_down[{'-'.join(failed)}]")
    assert [one["when"] for one in found["failures"]] == failed
    for one in found["failures"]:
        assert one["fixtures"][0]["services"][0]["service"] == "default/shop"


def test_a_backend_still_serving_after_the_proxy_closes_fails_the_test(recorded):
    assert "still served after the end of the proxy: 127.0.0.2:" in recorded.printed
    (failure,) = recorded.of("test_a_listener_takes_over_the_address")["failures"]
    assert "still served after the end" in failure["text"]
    assert failure["fixtures"][0]["services"][0]["backends"][0]["state"] == "stopped"
    another = recorded.of("test_another_test_fails")
    assert [len(one["fixtures"]) for one in another["failures"]] == [1]


def test_a_proxy_closed_by_the_test_does_not_hide_its_failure(recorded):
    assert re.search(r"assert 3 == 4(?s:.*)\nnot known: this proxy isn't running", recorded.printed)
    found = recorded.of("test_proxy_closes")
    assert found["failures"][0]["fixtures"][0]["services"] == []


@pytest.mark.long
def test_workers_and_later_runs_do_not_overwrite_each_others_files(run, records):
    for _ in range(2):
        run(FAILS, RECORD, "-p", "xdist", "-n", "2").assert_outcomes(failed=4)
    found = records()
    assert len(found) == 8
    assert {one["worker"] for one in found} == {"gw0", "gw1"}


RERUNS = """
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    for _ in range(3):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    return True
"""


def test_each_failed_attempt_of_a_rerun_test_is_recorded_in_its_own_file(pytester, run, records):
    pytester.makeconftest(RERUNS)
    text = """
tries = []

def test_the_third_attempt_passes(service_proxy):
    tries.append(service_proxy.service("web", seed=len(tries)))
    assert len(tries) > 2
"""
    run(text, RECORD).assert_outcomes(passed=1)
    services = [one["failures"][0]["fixtures"][0]["services"] for one in records()]
    assert sorted(one["seed"] for some in services for one in some) == [0, 1]
    assert [len(one["failures"]) for one in records()] == [1, 1]


def test_an_unwritable_folder_is_reported_in_one_line_after_the_failures(pytester, run):
    (pytester.path / "file").touch()
    result = run(FAILS, "--service-proxy-record=file/below")
    result.assert_outcomes(failed=4)
    text = result.stdout.str()
    assert text.count("AssertionError") >= 4
    assert len(re.findall(r"(?m)^service proxy: failed tests: cannot write to .*/file", text)) == 1


def test_a_configured_folder_is_below_the_root_and_has_only_failed_tests_using_the_proxy(
    pytester, monkeypatch, run, records
):
    root = f"--rootdir={pytester.path}"
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    folder = ("-o", "service_proxy_record=reports/proxy")
    result = run(SHOP, *folder, "--service-proxy-scope=session", root, "..")
    result.assert_outcomes(failed=2, passed=1)
    (found,) = records("reports/proxy")
    assert found["test"].endswith("::test_a_shop_saves_seven_connections")


def test_a_failed_write_leaves_no_partial_record(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write(tmp_path, RecordedTest("test_it", ""))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_text_with_lone_surrogates_is_recorded(tmp_path):
    path = write(tmp_path, RecordedTest("test_it[\ud800]", "", failures=[]))
    assert json.loads(path.read_text())["test"] == "test_it[\ud800]"


ODD = """
class Text(str):
    pass

class Number(int):
    pass

def test_subclassed_arguments_fail(service_proxy):
    service_proxy.service(Text("web"), seed=Number(3), hold=Text("5s"))
    assert 0

def test_an_unserializable_argument_fails(service_proxy):
    service_proxy.service("web")._asked["hold"] = object()
    assert 0

def test_another_test_fails(service_proxy):
    assert 0
"""


def test_unserializable_arguments_do_not_end_the_run(run, records):
    result = run(ODD, RECORD)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*failed tests: cannot write to */out: *object is unsupported*"])
    _, first = records()
    (web,) = first["failures"][0]["fixtures"][0]["services"]
    assert (web["seed"], web["settings"]) == (3, {"seed": 3, "hold": "5s"})


def test_an_unreadable_status_is_reported_in_the_record():
    class Broken:
        services = ()

        def status(self):
            raise ZeroDivisionError("no status")

    assert take("service_proxy", Broken()).report == "not known: no status"


def test_a_service_no_longer_served_has_no_address():
    with ServiceProxy() as proxy:
        web = proxy.service("web")
        proxy.delete(web.key)
        (service,) = take("service_proxy", proxy).services
    assert service.address is None
