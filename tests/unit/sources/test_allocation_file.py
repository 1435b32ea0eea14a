"""Allocations on disk."""

from __future__ import annotations

import json
import stat

import pytest

from userspace_proxy.sources import allocation_file
from userspace_proxy.sources.allocation_file import AllocationFile, Given

GIVEN = Given({"IPv4": {"shop/web": "10.96.0.7"}, "IPv6": {}}, {"shop/web:80": 30080})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "allocations.json"


def test_what_is_saved_is_loaded_and_nothing_is_left_beside_it(path):
    assert AllocationFile(path).save(GIVEN) == ""
    assert AllocationFile(path).load() == GIVEN
    assert [p.name for p in path.parent.iterdir()] == ["allocations.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_not_there_yet_is_no_problem(path, caplog):
    assert AllocationFile(path).load() == Given()
    assert caplog.records == []


def test_what_stands_there_already_is_not_written_again(path):
    AllocationFile(path).save(GIVEN)
    again = AllocationFile(path)
    again.load()
    before = path.stat()
    again.save(GIVEN)
    assert path.stat() == before
    again.save(Given())
    assert path.stat().st_ino != before.st_ino


def test_the_order_of_names_is_kept(path):
    given = Given(node_ports={"b:1": 30002, "a:1": 30001})
    AllocationFile(path).save(given)
    assert list(AllocationFile(path).load().node_ports) == ["b:1", "a:1"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('{"version": 1', id="cut-off"),
        pytest.param("[" * 100_000, id="too-deep"),
        pytest.param("[]", id="a-list"),
        pytest.param('{"version": 2}', id="newer"),
        pytest.param('{"version": 1, "clusterIPs": []}', id="no-families"),
        pytest.param('{"version": 1, "clusterIPs": {"IPv4": {"a": 1}}}', id="number-for-address"),
        pytest.param('{"version": 1, "nodePorts": {"a": "30000"}}', id="text-for-number"),
        pytest.param('{"version": 1, "nodePorts": {"a": true}}', id="truth-for-number"),
        pytest.param("\xff", id="other-encoding"),
    ],
)
def test_a_broken_file_costs_one_warning_and_is_replaced(path, caplog, text):
    path.parent.mkdir()
    path.write_text(text, encoding="latin-1")
    file = AllocationFile(path)
    assert file.load() == Given()
    [record] = caplog.records
    assert (record.levelname, record.message) == (
        "WARNING",
        "cannot read allocations, starting without them",
    )
    assert file.save(GIVEN) == ""
    assert json.loads(path.read_text())["nodePorts"] == {"shop/web:80": 30080}


def test_where_nothing_can_be_written_the_reason_is_said_and_it_is_tried_again(path):
    path.parent.write_text("a file where the folder should be")
    file = AllocationFile(path)
    problem = f"{path}: cannot save allocations: "
    assert file.save(GIVEN) in (f"{problem}File exists", f"{problem}Not a directory")
    path.parent.unlink()
    assert file.save(GIVEN) == ""
    assert AllocationFile(path).load() == GIVEN


def test_a_folder_in_its_place_is_a_problem_in_both_directions(path, caplog):
    path.mkdir(parents=True)
    file = AllocationFile(path)
    assert file.load() == Given()
    assert len(caplog.records) == 1
    assert file.save(GIVEN).endswith("Is a directory")
    assert [p.name for p in path.parent.iterdir()] == ["allocations.json"]


def test_a_file_that_is_too_large_is_not_read(path, monkeypatch, caplog):
    AllocationFile(path).save(GIVEN)
    monkeypatch.setattr(allocation_file, "FILE_BYTES_MAX", 10)
    assert AllocationFile(path).load() == Given()
    assert caplog.records[0].__dict__["problem"] == "it is larger than 0 MiB"
