"""Finding manifests and their changes; each check is one call."""

from __future__ import annotations

import os

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.errors import SourceError
from userspace_proxy.sources.manifests import files
from userspace_proxy.sources.manifests.files import FileWatch, Look


def names(look: Look) -> list[str]:
    return [path.rpartition("/")[2] for path in look.texts]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "web.yaml").write_text("web 1")
    return tmp_path


@pytest.fixture
def watch(folder):
    watch = FileWatch(folder)
    assert names(watch.first_look()) == ["web.yaml"]
    return watch


def test_the_first_check_reads_only_manifests_in_sorted_order(folder):
    for name in ("b.yml", "a.json", "notes.txt", ".hidden.yaml", "web.yaml~"):
        (folder / name).write_text(name)
    (folder / "below.yaml").mkdir()
    look = FileWatch(folder).first_look()
    assert names(look) == ["a.json", "b.yml", "web.yaml"]
    assert (look.gone, look.problems, look.is_settling) == (frozenset(), {}, False)


def test_a_single_file_is_read_regardless_of_its_name(folder):
    (folder / "notes.txt").write_text("text")
    look = FileWatch(folder / "notes.txt").first_look()
    assert look.texts == {str(folder / "notes.txt"): "text"}


def test_an_unchanged_file_is_not_reread(watch):
    assert watch.look() == Look()


def test_a_changed_file_is_read_after_two_equal_checks(folder, watch):
    web = folder / "web.yaml"
    web.write_text("")
    assert watch.look() == Look(is_settling=True)
    web.write_text("web 2")
    assert watch.look() == Look(is_settling=True)
    assert watch.look() == Look({str(web): "web 2"})
    assert watch.look() == Look()


def test_a_constantly_changing_file_is_read_eventually(folder, watch):
    looks = []
    for n in range(files.UNSETTLED_LOOKS_MAX + 1):
        (folder / "web.yaml").write_text("x" * n)
        looks.append(watch.look())
    assert [look.is_settling for look in looks] == [True] * files.UNSETTLED_LOOKS_MAX + [False]
    assert names(looks[-1]) == ["web.yaml"]


def test_a_file_being_written_is_not_read(folder, watch):
    web = str(folder / "web.yaml")
    (folder / "web.yaml").write_text("web")
    for _ in range(3):
        assert watch.look([web]) == Look(is_settling=True)
    assert watch.look() == Look({web: "web"})


def test_a_directory_being_refilled_keeps_its_files(folder, watch):
    (folder / "cart.yaml").write_text("cart")
    watch.look()
    watch.look()
    (folder / "web.yaml").unlink()
    (folder / "cart.yaml").unlink()
    assert watch.look() == Look(is_settling=True)
    (folder / "web.yaml").write_text("web 2")
    assert watch.look() == Look(is_settling=True)
    (folder / "cart.yaml").write_text("cart 2")
    look = watch.look()
    assert (names(look), look.gone, look.is_settling) == (["web.yaml"], frozenset(), True)
    look = watch.look()
    assert (names(look), look.gone, look.is_settling) == (["cart.yaml"], frozenset(), False)


def test_symbolic_links_among_the_manifests_are_listed(folder, watch):
    (folder / "cart.yaml").symlink_to("web.yaml")
    watch.look()
    assert watch.links == {str(folder / "cart.yaml")}


def test_a_new_file_is_read_and_a_deleted_file_is_reported(folder, watch):
    (folder / "cart.yaml").write_text("cart")
    (folder / "web.yaml").unlink()
    assert watch.look() == Look(is_settling=True)
    assert watch.look() == Look(
        {str(folder / "cart.yaml"): "cart"}, frozenset({str(folder / "web.yaml")})
    )


def test_an_editor_moving_the_old_file_away_first_causes_no_gap(folder, watch):
    web = folder / "web.yaml"
    web.rename(folder / "web.yaml~")
    assert watch.look() == Look(is_settling=True)
    web.write_text("web 2")
    assert watch.look() == Look(is_settling=True)
    assert watch.look() == Look({str(web): "web 2"})


def test_a_config_map_update_counts_as_a_change(folder):
    for version in ("1", "2"):
        (folder / f"..{version}").mkdir()
        (folder / f"..{version}" / "shop.yaml").write_text(f"shop {version}")
    (folder / "..data").symlink_to("..1")
    (folder / "shop.yaml").symlink_to("..data/shop.yaml")
    watch = FileWatch(folder)
    assert watch.first_look().texts[str(folder / "shop.yaml")] == "shop 1"
    (folder / "..tmp").symlink_to("..2")
    (folder / "..tmp").rename(folder / "..data")
    watch.look()
    assert watch.look().texts == {str(folder / "shop.yaml"): "shop 2"}


def test_a_vanished_path_is_reported_and_removes_no_files(folder, watch):
    folder.rename(folder.with_name("elsewhere"))
    expected = Look(problems={str(folder): f"{folder}: cannot read: No such file or directory"})
    assert watch.look() == Look(is_settling=True)
    assert [watch.look(), watch.look()] == [expected, expected]
    folder.with_name("elsewhere").rename(folder)
    assert watch.look() == Look()
    folder.rename(folder.with_name("elsewhere"))
    assert watch.look() == Look(is_settling=True)


def test_a_path_missing_at_startup_is_an_error(tmp_path):
    with pytest.raises(SourceError) as caught:
        FileWatch(tmp_path / "nothing").first_look()
    assert str(caught.value) == (
        f"cannot read manifests from {tmp_path}/nothing: No such file or directory "
        "(give a YAML or JSON file, or a folder of them)"
    )


def test_a_path_other_than_a_file_or_directory_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="Not a directory"):
        FileWatch(tmp_path / "pipe").first_look()


def test_a_pipe_is_reported_immediately_and_other_files_are_read(folder):
    os.mkfifo(folder / "pipe.yaml")
    look = FileWatch(folder).first_look()
    assert names(look) == ["web.yaml"]
    assert look.problems == {
        str(folder / "pipe.yaml"): f"{folder}/pipe.yaml: cannot read: it is a pipe, a socket or a "
        "device (write a file there, or a link to one)"
    }


def test_a_file_replaced_by_a_pipe_keeps_its_content_until_a_file_returns(folder, watch):
    web = folder / "web.yaml"
    web.unlink()
    os.mkfifo(web)
    assert list(watch.look().problems) == [str(web)]
    assert watch.look().gone == frozenset()
    web.unlink()
    web.write_text("web 3")
    watch.look()
    assert watch.look() == Look({str(web): "web 3"})


def test_a_pipe_replacing_a_file_before_the_read_does_not_block(folder):
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(OSError, match="it is a pipe"):
        files._read_file(str(folder / "pipe.yaml"))


@pytest.mark.parametrize("name", ["cart.yaml", "web.yaml"])
def test_a_dangling_link_is_reported_and_a_file_that_it_replaces_is_kept(folder, watch, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("nowhere")
    problem = f"{folder}/{name}: cannot read: it is a link to a file that doesn't exist (restore "
    problems = {str(folder / name): f"{problem}that file, or remove the link)"}
    assert [watch.look() for _ in range(3)] == [Look(problems=problems)] * 3


def test_an_oversized_file_is_reported_and_other_files_are_read(folder, watch):
    with (folder / "huge.yaml").open("wb") as huge:
        huge.truncate(2 * files.FILE_BYTES_MAX)
    (folder / "web.yaml").write_text("web 2")
    watch.look()
    look = watch.look()
    assert list(look.problems.values()) == [
        f"{folder}/huge.yaml: cannot read: it is larger than 64 MiB; split it"
    ]
    assert look.texts == {str(folder / "web.yaml"): "web 2"}


@pytest.mark.parametrize("was_read", [False, True], ids=["new", "read-before"])
def test_the_problem_of_a_deleted_manifest_is_removed(folder, watch, was_read):
    name = folder / ("web.yaml" if was_read else "huge.yaml")
    (folder / "other.yaml").write_text("other")
    with name.open("wb") as huge:
        huge.truncate(2 * files.FILE_BYTES_MAX)
    watch.look()
    assert watch.look().problems
    name.unlink()
    watch.look()
    assert watch.look().problems == {}


def test_an_unreadable_file_is_reported_until_readable(folder, watch, monkeypatch):
    web = folder / "web.yaml"
    web.write_text("web 2")
    monkeypatch.setattr(files, "FILE_BYTES_MAX", 4)
    problem = {str(web): f"{web}: cannot read: it is larger than 0 MiB; split it"}
    watch.look()
    assert [watch.look(), watch.look()] == [Look(problems=problem), Look(problems=problem)]
    monkeypatch.undo()
    assert watch.look() == Look({str(web): "web 2"})


def test_a_check_without_descriptors_changes_nothing(folder, watch):
    with descriptors_left(0):
        assert [watch.look(), watch.look(), watch.look()] == [Look()] * 3
    (folder / "web.yaml").write_text("web 2")
    watch.look()
    assert watch.look() == Look({str(folder / "web.yaml"): "web 2"})


def test_a_file_changed_while_no_descriptor_is_free_is_read_later(folder):
    web = folder / "web.yaml"
    watch = FileWatch(web)
    watch.first_look()
    web.write_text("web 2")
    with descriptors_left(0):
        assert [watch.look(), watch.look()] == [Look(is_settling=True), Look()]
    assert watch.look() == Look({str(web): "web 2"})


def test_a_files_problem_is_kept_while_no_descriptor_is_free(folder, monkeypatch):
    web = folder / "web.yaml"
    monkeypatch.setattr(files, "FILE_BYTES_MAX", 4)
    watch = FileWatch(web)
    look = watch.first_look()
    assert list(look.problems) == [str(web)]
    # Opening fails before the size is known.
    with descriptors_left(0):
        assert [watch.look(), watch.look()] == [
            Look(problems=look.problems, is_settling=True),
            look,
        ]


def test_a_problem_persists_while_other_files_change(folder, watch):
    (folder / "cart.yaml").symlink_to("nowhere")
    look = watch.look()
    assert list(look.problems) == [str(folder / "cart.yaml")]
    folder.rename(folder.with_name("moved"))
    assert watch.look() == Look(problems=look.problems, is_settling=True)
    folder.with_name("moved").rename(folder)
    (folder / "cart.yaml").unlink()
    (folder / "web.yaml").write_text("web 2")
    assert watch.look() == Look(problems=look.problems, is_settling=True)
    assert watch.look() == Look({str(folder / "web.yaml"): "web 2"})


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_decoded_as_by_kubectl(folder, watch, encoding):
    web = folder / "web.yaml"
    web.write_text("a: gar\u00e7on\n", encoding=encoding)
    watch.look()
    assert watch.look().texts[str(web)].removeprefix("\ufeff") == "a: gar\u00e7on\n"


def test_a_directory_without_manifests_is_reported(tmp_path):
    look = FileWatch(tmp_path).first_look()
    assert look.problems == {
        str(tmp_path): f"{tmp_path}: contains no manifests (*.yaml, *.yml, *.json)"
    }


def test_a_directory_is_reported_after_its_last_manifest_is_deleted(folder, watch):
    (folder / "web.yaml").unlink()
    assert watch.look() == Look(is_settling=True)
    assert list(watch.look().problems) == [str(folder)]
