"""The pytest plugin; each test is a separate run of pytest."""

import re
from pathlib import Path

import pytest

from tests.node.processes import readable_folder, readable_runtime

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

PLUGIN = (
    *("-p", "userspace_proxy_testing.plugin"),
    *("-p", "no:asyncio", "-p", "no:randomly", "-p", "no:cacheprovider"),
)

GET = """
from urllib.request import urlopen

def get(service):
    with urlopen(service.url, timeout=60) as answer:
        return answer.read().decode().strip()
"""


@pytest.fixture
def run(pytester):
    """Return a function that runs a test file with the plugin in a subprocess."""

    def run(text, *arguments):
        pytester.makepyfile(GET + text)
        return pytester.runpytest_subprocess(*PLUGIN, *arguments)

    return run


NETWORK = """
import os
from pathlib import Path

def test_a_service_answers(service_network):
    web = service_network.service("web", backends=2)
    client = service_network.client()
    before = os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user")
    web.backends[0].stop()
    assert client.get("http://web/").text == "web-2\\n"
    assert web.stats.saved == 1
    assert before == (os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/user"))
    lines = Path("/proc/self/status").read_text().splitlines()
    print("capabilities", next(line for line in lines if line.startswith("CapEff")))
"""


def test_the_fixture_provides_a_network_without_privileges(pytester, monkeypatch):
    with readable_runtime() as (prefix, python, env), readable_folder() as folder:
        (folder / "test_it.py").write_text(NETWORK)
        monkeypatch.chdir(folder)
        command = [*prefix, "env", *(f"{k}={v}" for k, v in env.items()), python, "-m", "pytest"]
        result = pytester.run(*command, *PLUGIN, "-rP", f"--rootdir={folder}", folder)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["capabilities CapEff:*0000000000000000"])


SCOPE = """
seen = []

def test_the_first_test_gets_a_proxy(service_proxy):
    seen.append(service_proxy)

def test_the_second_test_shares_the_proxy_only_in_session_scope(service_proxy):
    assert (service_proxy is seen[0]) is {shared}
"""


@pytest.mark.long
def test_session_scope_shares_one_proxy_among_tests(run):
    result = run(SCOPE.format(shared=True), "--service-proxy-scope=session")
    result.assert_outcomes(passed=2)


@pytest.mark.long
def test_unittest_classes_and_coroutines_can_use_the_fixture(run):
    result = run(
        """
import asyncio
import unittest

import pytest

class TestWeb(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def _proxy(self, service_proxy):
        self.web = service_proxy.service("web")

    def test_a_service_answers(self):
        self.assertEqual(get(self.web), "web-1")

async def test_a_coroutine_uses_the_fixture(service_proxy):
    web = service_proxy.service("web")
    reader, writer = await asyncio.open_connection(*web.address)
    writer.write(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
    assert (await reader.read()).endswith(b"web-1\\n")
    writer.close()

async def test_a_failing_coroutine_is_reported(service_proxy):
    assert service_proxy.services

async def test_a_coroutine_without_the_fixture_is_left_to_other_plugins():
    pass
"""
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*assert ()*", "*functions are not natively supported*"])


ASKS = """
def test_a_cluster_service_answers(kubernetes_services):
    web = kubernetes_services["shop/web"]
    web.pods = {"web-1": None}
    assert get(web) == "web-1"
"""


@pytest.mark.long
def test_without_a_cluster_the_skip_names_the_missing_kubeconfig(run, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    result = run(ASKS, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["*kubernetes_services: no cluster (give --service-proxy-kubeconfig=PATH, *"]
    )
    run(ASKS, "--service-proxy-require").assert_outcomes(errors=1)


@pytest.mark.long
@pytest.mark.parametrize("how", ["option", "variable", "fixture"])
def test_a_kubeconfig_option_variable_or_fixture_selects_the_cluster(
    run, cluster, monkeypatch, how
):
    cluster.put_service()
    arguments, fixture = [], ""
    if how == "option":
        arguments = [f"--service-proxy-kubeconfig={cluster.kubeconfig}"]
    elif how == "variable":
        monkeypatch.setenv("KUBECONFIG", f"{cluster.kubeconfig}:/another")
    else:
        fixture = f"""
import pathlib
import pytest

@pytest.fixture(scope="session")
def service_proxy_kubeconfig():
    return pathlib.Path({str(cluster.kubeconfig)!r})
"""
    run(fixture + ASKS, *arguments).assert_outcomes(passed=1)
    assert cluster.pods() == {}


def test_a_run_without_the_fixture_does_not_import_the_proxy(run):
    result = run(
        """
import sys

def test_nothing_is_imported():
    assert "userspace_proxy.agent" not in sys.modules
    assert "asyncio" not in sys.modules or "userspace_proxy.dataplane" not in sys.modules
"""
    )
    result.assert_outcomes(passed=1)


PAGES = ("README.md", "docs/in-tests.md", "docs/index.md", "pytest-userspace-proxy/README.md")


def test_all_documented_tests_that_need_no_cluster_pass_with_their_own_proxies(pytester):
    texts = [SCOPE.format(shared=False)]
    for page in PAGES:
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        # Tests with a cluster are in examples/envtest-pytest, which tests/cluster runs.
        tests = [one for one in blocks if "def test_" in one and "kubernetes_services" not in one]
        texts.append("\n\n".join(tests))
    pytester.makepyfile(**{f"test_{n}": text for n, text in enumerate(texts)})
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(passed="".join(texts).count("def test_"))


FAULT = 'web.backends[1].fault("reset_peer")'
VARYING = {
    r"127[\d.]+:\d+": "ADDRESS",
    r"port \d+": "port",
    r"\b[\d.]+ (s|ms|B)\b": "AMOUNT",
    # The length of the arrow depends on how deeply the standard library's code is nested.
    r"(?m)^E +": "E ",
}


def masked(text):
    """Return the lines of a text, in which all parts that differ between runs are masked."""
    for pattern, word in VARYING.items():
        text = re.sub(pattern, word, text)
    return text.splitlines()


FAILS = """
def test_a_count_is_wrong(service_proxy):
    web = service_proxy.service("web", backends=2)
    web.backends[0].stop()
    get(web)
    assert web.stats.saved == 7
"""


def test_the_report_of_a_failing_test_matches_the_documentation(pytester):
    text = (ROOT / "docs/in-tests.md").read_text()
    first = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert f"`{FAULT}`" in text
    shown = re.search(r"```\n([^`]*  ! default/web [^`]*)```", text)[1]
    stop = "    web.backends[0].stop()\n"
    assert stop in first
    pytester.makepyfile(test_a=GET + FAILS, test_b=first.replace(stop, f"{stop}    {FAULT}\n"))
    result = pytester.runpytest_subprocess(*PLUGIN)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*assert 1 == 7*",
            "*service proxy*",
            "*default/web*1 of 2*",
            "default/web: backends web-1 at 127.0.0.2:* (stopped), web-2 at 127.0.0.3:*",
        ]
    )
    one, _, other = result.stdout.str().partition(" test_a_count_is_wrong ")[2].partition("\n____")
    assert "connection ended" not in one
    output = iter(masked(other))
    assert [line for line in masked(shown) if line not in output] == []


@pytest.mark.long
@pytest.mark.parametrize(("name", "count"), [("test_shop", 7), ("test_network", 4)])
def test_the_example_tests_pass(pytester, name, count):
    example = ROOT / f"examples/pytest/{name}.py"
    pytester.makepyfile(**{name: example.read_text()})
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=count)
