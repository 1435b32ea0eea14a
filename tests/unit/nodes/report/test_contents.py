"""Tests of a report's files, with secrets in every field that users can write."""

import json
import re

import msgspec
import pytest

from userspace_proxy.facts import Level, SourceFacts
from userspace_proxy.facts.encoding import read_answer
from userspace_proxy.secrets import Secrets
from userspace_proxy_kubectl.nodes.agent_answer import AgentAnswer, AllNodes
from userspace_proxy_kubectl.nodes.agent_causes import answer_unreadable
from userspace_proxy_kubectl.nodes.report import contents
from userspace_proxy_kubectl.nodes.report.agent_logs import AgentLog
from userspace_proxy_kubectl.nodes.report.contents import Contents, listed
from userspace_proxy_kubectl.nodes.report.gathering import Material, Missing
from userspace_proxy_kubectl.nodes.report.objects import ServiceObjects
from userspace_proxy_kubectl.nodes.report.pseudonyms import Pseudonyms
from userspace_proxy_kubectl.nodes.report.scrubbing import Scrubber
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_answers import TRICKS, forged
from userspace_proxy_testing.fakes.agent_status import service_objects, status_of

NOW = 1_795_000_000.0
KEY = b"a key of tests"
PLANTED = (
    "planted-token", "planted-word", "planted-annotation", "planted-label", "planted-owner",
    "planted-field", "planted-data", "planted-bearer", "planted-variable", "planted-url",
    "eyJhbGciOi", "MIIEplanted", "planted-environment",
)  # fmt: skip


def planted_objects():
    service, slice_ = service_objects(3, nodes=["alpha", "beta"])[2:4]
    metadata = {
        "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "planted-annotation",
            "acme.example/password": "planted-annotation",
        },
        "labels": {"acme": "planted-label"},
        "ownerReferences": [{"name": "planted-owner"}],
        "managedFields": [{"manager": "planted-field"}],
    }
    secret = {"kind": "Secret", "data": {"password": "planted-data"}}
    service = {**service, "metadata": {**service["metadata"], **metadata}, "data": secret}
    return ServiceObjects("team-1/service-1", [service, slice_, secret])


def answers():
    objects = service_objects(3, nodes=["alpha", "beta"])
    status = status_of(objects, "alpha")
    port = status.ports[1]
    port.state = msgspec.structs.replace(
        port.state, level=Level.TROUBLE, sentence="10.128.0.3:8080 said Bearer planted-bearer"
    )
    problem = "https://alice:planted-url@10.96.0.1 refused eyJhbGciOi.eyJzdWIi.c2ln"
    status = msgspec.structs.replace(
        status,
        source=SourceFacts(is_synced=True, problems=[problem]),
        settings={"cluster_cidr": "10.128.0.0/16", "api_token": "planted-word-of-a-setting"},
    )
    agent = ForwardTarget("kube-system", "userspace-proxy-x2x4z", 10249)
    why = answer_unreadable("kube-system", "token=planted-word")
    return (
        AgentAnswer("alpha", (agent,), status, answered_at=NOW, asked_at=NOW),
        AgentAnswer("beta", problem=why),
    )


LOG = """\
team-1/service-1: 10.128.0.3:8080 on beta refuses pod-3
Authorization: Basic planted-bearer
DB_PASSWORD=planted-variable team-9/acme-7d9f8b6c5-x2x4z
planted-token was sent to acme.example.com
-----BEGIN PRIVATE KEY-----
MIIEplantedMIIEplanted
-----END PRIVATE KEY-----
"""


def made(pseudonyms=None):
    nodes = answers()
    material = Material(
        AllNodes(nodes),
        NOW,
        [AgentLog(nodes[0].agents[0], LOG)],
        [planted_objects()],
        {"gitVersion": "v1.36.3"},
        [Missing("answer of beta", "token=planted-word")],
    )
    if pseudonyms is not None:
        pseudonyms.learn("namespace", ["team-9", "acme"])
    return Contents(material, Scrubber(Secrets("planted-token"), pseudonyms))


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("USERSPACE_PROXY_TOKEN", "planted-environment")


def test_a_report_archive_contains_the_listed_files():
    files = {file.path: file.body for file in made().files()}
    assert sorted(files) == [
        "README.txt",
        "logs/log-userspace-proxy-x2x4z.txt",
        "manifest.json",
        "nodes.json",
        "nodes.txt",
        "nodes/status-alpha.json",
        "services/team-1_service-1.json",
        "settings.json",
        "status.json",
        "status.txt",
        "versions.json",
    ]
    assert read_answer(files["nodes/status-alpha.json"]).node == "alpha"
    assert json.loads(files["settings.json"])["alpha"]["cluster_cidr"] == "10.128.0.0/16"
    assert json.loads(files["versions.json"])["api_server"] == {"gitVersion": "v1.36.3"}
    assert b"team-1/service-1" in files["status.txt"]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("pseudonyms", [None, Pseudonyms(KEY)], ids=["named", "anonymous"])
def test_no_file_contains_a_secret(pseudonyms):
    text = b"".join(file.path.encode() + file.body for file in made(pseudonyms).files()).decode()
    assert [secret for secret in PLANTED if secret in text] == []


def test_an_anonymous_report_contains_no_names_or_addresses():
    contents = made(Pseudonyms(KEY))
    text = b"\n".join(file.path.encode() + file.body for file in contents.files()).decode()
    # Pseudonyms such as service-k3f9t contain letters and don't match.
    numbered = r"(?:team|service|pod)-\d+\b"
    names = r"alpha|beta|acme|10\.96\.0\.\d|10\.128\.0\.\d|x2x4z"
    assert re.findall(rf"(?<![\w.])(?:{numbered}|{names})", text) == []


def test_a_name_has_the_same_pseudonym_in_all_files():
    pseudonyms = Pseudonyms(KEY)
    files = {file.path: file.body.decode() for file in made(pseudonyms).files()}
    node, service = pseudonyms.name("alpha", ""), pseudonyms.name("service-1", "")
    endpoint = pseudonyms.address("10.128.0.3")
    assert f"nodes/status-{node}.json" in files
    assert node in files["nodes.txt"]
    (log,) = [text for path, text in files.items() if path.startswith("logs/")]
    (objects,) = [text for path, text in files.items() if path.startswith("services/")]
    for text in (files["status.txt"], files["status.json"], log, objects):
        assert service in text
        assert endpoint in text


def test_the_order_of_hidden_names_is_not_revealed():
    pseudonyms = Pseudonyms(KEY)
    files = {file.path: file.body for file in made(pseudonyms).files()}
    (path,) = [path for path in files if path.startswith("nodes/")]
    ports = read_answer(files[path]).ports
    assert [port.names[0] for port in ports] == sorted(port.names[0] for port in ports)
    for port in ports:
        addresses = [endpoint.address for endpoint in port.endpoints]
        assert addresses == sorted(addresses)


def test_all_files_and_missing_parts_are_listed():
    contents = made()
    files = {file.path: file.body for file in contents.files()}
    manifest = json.loads(files["manifest.json"])
    sizes = {one["path"]: one["bytes"] for one in manifest["files"]}
    others = {path: len(body) for path, body in files.items() if path not in sizes}
    assert sizes | others == {path: len(body) for path, body in files.items()}
    assert [*others] == ["manifest.json", "README.txt"]
    assert contents.count == len(files)
    assert manifest["missing"] == [{"what": "answer of beta", "why": "token=[removed]"}]
    assert manifest["is_anonymous"] is False
    readme = files["README.txt"].decode()
    assert "  answer of beta: token=[removed]\n" in readme
    assert all(path in readme for path in sizes)


def test_no_file_contains_unescaped_control_characters():
    trick = "".join(TRICKS)
    status = forged(status_of(service_objects(1), "alpha"), trick)
    agent = ForwardTarget("kube-system", f"a{trick}", 10249)
    service = ServiceObjects(f"a/{trick}", [{"metadata": {"name": trick}}])
    missing = [Missing(trick, trick)]
    nodes = AllNodes((AgentAnswer("alpha", (agent,), status), AgentAnswer(trick)))
    material = Material(
        nodes, NOW, [AgentLog(agent, trick)], [service], {"gitVersion": trick}, missing
    )
    files = {one.path: one.body for one in Contents(material, Scrubber(Secrets())).files()}
    for path, body in files.items():
        assert path.isprintable()
        assert set(body.decode()) - {"\n", "\t"} == {c for c in body.decode() if c.isprintable()}
    assert TRICKS[0] in read_answer(files["nodes/status-alpha.json"]).verdict


def test_oversized_responses_are_listed_as_missing(monkeypatch):
    monkeypatch.setattr(contents, "STATUS_BYTES", 100)
    found = made()
    assert not [file for file in found.files() if file.path.startswith("nodes/")]
    assert found.missing[-1] == Missing("answer of alpha", "it is too large")


def test_only_the_first_ten_missing_parts_are_printed():
    lines = [*listed([Missing(f"part {i}", "gone") for i in range(12)])]
    assert lines[0] == "missing: part 0: gone"
    assert lines[10:] == ["missing: 2 other parts, which README.txt in it lists"]
