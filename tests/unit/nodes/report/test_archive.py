import os
import stat
import tarfile

import pytest

from userspace_proxy_kubectl.nodes.report.archive import ArchiveError, ReportFile, write_archive

NOW = 1_795_000_000.0
FILES = [ReportFile("README.txt", b"hello\n"), ReportFile("nodes/status-a.json", b"{}\n")]


def contents_of(path):
    with tarfile.open(path) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive}


def test_an_archive_contains_one_directory_and_is_readable_only_by_its_user(tmp_path):
    path = tmp_path / "incident.tar.gz"
    size = write_archive(path, FILES, made_at=NOW)
    assert contents_of(path) == {f"incident/{file.path}": file.body for file in FILES}
    assert size == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_an_archive_contains_no_facts_about_the_creating_machine(tmp_path):
    for name in ("a.tar.gz", "b.tar.gz"):
        write_archive(tmp_path / name, [], made_at=NOW)
    path = tmp_path / "c.tar.gz"
    write_archive(path, FILES, made_at=NOW)
    with tarfile.open(path) as archive:
        for one in archive:
            assert (one.uid, one.gid, one.uname, one.gname, one.mtime) == (0, 0, "", "", NOW)
    # A file name in the gzip header would be the name of the temporary file.
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_a_file_created_while_the_archive_is_written_is_kept(tmp_path):
    path = tmp_path / "a.tar.gz"

    def files():
        path.write_bytes(b"theirs")
        yield FILES[0]

    with pytest.raises(ArchiveError, match="exists"):
        write_archive(path, files(), made_at=NOW)
    assert path.read_bytes() == b"theirs"
    assert [*tmp_path.iterdir()] == [path]


def test_a_symbolic_link_is_not_followed(tmp_path):
    path, other = tmp_path / "a.tar.gz", tmp_path / "other"
    path.symlink_to(other)
    with pytest.raises(ArchiveError, match="exists"):
        write_archive(path, FILES, made_at=NOW)
    write_archive(path, FILES, made_at=NOW, replaces=True)
    assert not other.exists()


def test_an_interrupted_archive_leaves_no_file(tmp_path):
    def files():
        yield FILES[0]
        raise KeyboardInterrupt

    for replaces in (False, True):
        with pytest.raises(KeyboardInterrupt):
            write_archive(tmp_path / "a.tar.gz", files(), made_at=NOW, replaces=replaces)
    assert [*tmp_path.iterdir()] == []


def test_a_nonexistent_directory_is_reported(tmp_path):
    path = tmp_path / "no" / "a.tar.gz"
    with pytest.raises(ArchiveError, match=f"cannot write {path}: No such file"):
        write_archive(path, FILES, made_at=NOW)


def test_an_archive_is_also_written_on_a_file_system_without_links(tmp_path, monkeypatch):
    def no_links(*_args):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "a.tar.gz"
    write_archive(path, FILES, made_at=NOW)
    assert len(contents_of(path)) == 2
    with pytest.raises(ArchiveError, match="exists"):
        write_archive(path, FILES, made_at=NOW)
