import re
import tarfile

import pytest

from .nodes_world import Cluster, cluster_at


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    async with cluster_at(tmp_path / "config") as cluster:
        yield cluster


def texts_of(path):
    with tarfile.open(path) as archive:
        return {one.name: archive.extractfile(one).read().decode() for one in archive}


async def test_a_report_is_written_and_summarized(cluster: Cluster, tmp_path, capsys):
    cluster.add("alice")
    cluster.agents.put_node("bob")
    assert await cluster.run("report", "--file=incident.tar.gz") == 0
    texts = texts_of(tmp_path / "incident.tar.gz")
    assert "incident/nodes/status-alice.json" in texts
    out = capsys.readouterr().out
    assert re.match(rf"incident\.tar\.gz: \d+ KiB, of {len(texts)} files\n", out)
    assert "missing: answer of bob: no agent\n" in out


async def test_the_default_file_name_contains_the_time(cluster: Cluster, tmp_path):
    cluster.add("alice")
    assert await cluster.run("report") == 0
    (path,) = tmp_path.glob("*.tar.gz")
    assert re.fullmatch(r"userspace-proxy-report-\d{8}-\d{6}\.tar\.gz", path.name)


async def test_an_anonymous_report_contains_no_names(cluster: Cluster, tmp_path, capsys):
    cluster.add("alice")
    cluster.agents.put_node("bob")
    assert await cluster.run("report", "--anonymous", "-f", "a.tar.gz") == 0
    texts = texts_of(tmp_path / "a.tar.gz")
    words = " ".join([*texts, *texts.values(), capsys.readouterr().out])
    assert not re.search(r"\b(alice|bob|shop)\b", words)


async def test_an_anonymous_report_without_known_names_omits_logs(
    cluster: Cluster, tmp_path, capsys
):
    cluster.add("alice")
    cluster.api.denied = {"list services"}
    assert await cluster.run("report", "--anonymous", "-f", "a.tar.gz") == 0
    assert "missing: logs of agents: not all names in them could be hidden" in (
        capsys.readouterr().out
    )
    assert not [name for name in texts_of(tmp_path / "a.tar.gz") if "/logs/" in name]


async def test_an_existing_file_is_replaced_only_on_request(cluster: Cluster, tmp_path, capsys):
    cluster.add("alice")
    path = tmp_path / "a.tar.gz"
    path.write_text("mine")
    requests = len(cluster.api.requests)
    assert await cluster.run("report", "-f", "a.tar.gz") == 2
    assert "--file: a.tar.gz exists (give another name, or --overwrite)" in capsys.readouterr().err
    # The existing file was detected before the first request.
    assert (path.read_text(), len(cluster.api.requests)) == ("mine", requests)
    assert await cluster.run("report", "-f", "a.tar.gz", "--overwrite") == 0
    assert texts_of(path)
    assert await cluster.run("report", "-f", ".") == 2
