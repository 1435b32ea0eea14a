"""The events that wake the source, with real files, links and directories."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.descriptors import descriptors_left, open_descriptors
from userspace_proxy.sources.manifests.file_events import LINKS_MAX, FileEvents


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "web.yaml").write_text("web 1")
    return folder


@pytest.fixture
def follow():
    """Yield a function that follows a path and links, and returns their events from then on."""
    opened = []

    def opener(path, *links):
        events = FileEvents(path)
        opened.append(events)
        assert events.follow(map(str, links))
        assert events.problem == ""
        return events

    yield opener
    for events in opened:
        events.close()


def test_the_problem_of_unwatchable_files_ends_once_they_can_be_watched(folder):
    events = FileEvents(folder)
    before = open_descriptors()
    with descriptors_left(0):
        events.follow(())
    assert "inotify" in events.problem
    events.follow(())
    assert events.problem == ""
    events.close()
    assert open_descriptors() == before


def count_watches(events):
    """Return how many folders the kernel watches for this object."""
    return Path(f"/proc/self/fdinfo/{events._inotify.fileno()}").read_text().count("inotify wd:")


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(lambda f: (f / "web.yaml").write_text("web 2"), id="written"),
        pytest.param(lambda f: (f / "cart.yml").touch(), id="created"),
        pytest.param(lambda f: (f / "web.yaml").unlink(), id="deleted"),
        pytest.param(lambda f: (f / "web.yaml").rename(f / "web.yaml~"), id="moved-away"),
        pytest.param(lambda f: (f / "web.yaml").chmod(0o600), id="permissions"),
        pytest.param(lambda f: (f / "web.json").symlink_to("web.yaml"), id="linked"),
        pytest.param(lambda f: f.rename(f.with_name("moved")), id="folder-moved"),
        pytest.param(shutil.rmtree, id="folder-deleted"),
    ],
)
def test_a_manifest_change_is_reported_once(folder, follow, happens):
    events = follow(folder)
    happens(folder)
    assert events.take()
    assert events.has_heard
    assert not events.take()


def test_changes_of_other_files_are_not_reported(folder, follow):
    events = follow(folder)
    (folder / ".web.yaml.swp").write_text("swap")
    (folder / "notes.txt").write_text("notes")
    folder.with_name("other.yaml").write_text("beside the folder")
    assert not events.take()
    assert not events.has_heard


def test_a_file_renamed_over_a_manifest_is_reported(folder, follow):
    events = follow(folder / "web.yaml")
    (folder / "cart.yaml").write_text("cart")
    assert not events.take()
    (folder / "cart.yaml").rename(folder / "web.yaml")
    assert events.take()


def test_a_config_map_update_is_reported(folder, follow):
    for version in ("1", "2"):
        (folder / f"..{version}").mkdir()
        (folder / f"..{version}" / "cart.yaml").touch()
    (folder / "..data").symlink_to("..1")
    (folder / "cart.yaml").symlink_to("..data/cart.yaml")
    events = follow(folder, folder / "cart.yaml")
    watches = count_watches(events)
    (folder / "..tmp").symlink_to("..2")
    assert not events.take()
    (folder / "..tmp").rename(folder / "..data")
    assert events.take()
    assert events.follow([str(folder / "cart.yaml")])
    (folder / "..2" / "cart.yaml").write_text("cart")
    assert events.take()
    (folder / "..1" / "cart.yaml").write_text("cart")
    assert not events.take()
    assert count_watches(events) == watches


def test_changes_of_a_link_target_and_of_intermediate_links_are_reported(folder, tmp_path, follow):
    for release in ("r1", "r2"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "cart.yaml").touch()
    (tmp_path / "current").symlink_to("r1")
    (folder / "cart.yaml").symlink_to("../current/cart.yaml")
    events = follow(folder, folder / "cart.yaml")
    (tmp_path / "r1" / "cart.yaml").write_text("cart")
    assert events.take()
    assert events.writing == set()
    (tmp_path / "new").symlink_to(tmp_path / "r2")
    (tmp_path / "new").rename(tmp_path / "current")
    assert events.take()


def test_a_change_behind_a_linked_path_is_reported(folder, tmp_path, follow):
    (tmp_path / "current").symlink_to("shop")
    events = follow(tmp_path / "current")
    (folder / "web.yaml").write_text("web 2")
    assert events.take()
    (tmp_path / "current").unlink()
    assert events.take()


def test_a_change_of_circular_links_is_reported(folder, follow):
    (folder / "a.yaml").symlink_to("b.yaml")
    (folder / "b.yaml").symlink_to("a.yaml")
    events = follow(folder, folder / "a.yaml", folder / "b.yaml")
    (folder / "a.yaml").unlink()
    assert events.take()


def test_only_the_first_links_of_a_long_chain_are_watched(folder, follow):
    """Each link has its own folder, and a manifest without links is still watched."""
    links = [folder / f"{n}" / "a.yaml" for n in range(2 * LINKS_MAX)]
    for link, target in zip(links, [*links[1:], folder / "web.yaml"], strict=True):
        link.parent.mkdir()
        link.symlink_to(target)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        links[0].read_text()
    events = follow(folder, links[0])
    for number, link in enumerate(links):
        link.unlink()
        assert events.take() == (number < LINKS_MAX)
    (folder / "web.yaml").write_text("web 2")
    assert events.take()


def test_a_recreated_directory_is_followed(folder, follow):
    events = follow(folder)
    shutil.rmtree(folder)
    assert events.take()
    assert not events.follow([])
    folder.mkdir()
    assert events.take()
    assert events.follow([])
    (folder / "web.yaml").touch()
    assert events.take()


def test_a_file_counts_as_being_written_until_it_is_closed(folder, follow):
    events = follow(folder)
    web = folder / "web.yaml"
    with web.open("w") as file:
        assert events.take()
        assert events.writing == {str(web)}
        file.write("web 2")
    assert events.take()
    assert events.writing == set()


def test_a_file_in_a_moved_directory_does_not_count_as_being_written(folder, follow):
    events = follow(folder)
    with (folder / "web.yaml").open("w"):
        events.take()
        folder.rename(folder.with_name("moved"))
        events.follow([])
        assert events.writing == set()


def test_lost_events_are_reported_as_one_event(folder, follow):
    events = follow(folder)
    (folder / "web.yaml").open("w").close()
    with (folder / "web.yaml").open("w") as file:
        # The kernel merges equal consecutive events.
        for _ in range(10_000):
            file.write("web 2")
            file.flush()
            (folder / "cart.yaml").touch()
        assert events.take()
        assert events.writing == set()
        assert not events.take()


async def test_waiting_for_file_events_ends_with_an_event_or_the_timer(folder, follow):
    events = follow(folder)
    timer = asyncio.Event()

    async def ends() -> None:
        await timer.wait()

    waiting = asyncio.ensure_future(events.wait(ends()))
    (folder / "web.yaml").write_text("web 2")
    await asyncio.wait_for(waiting, 60)
    timer.set()
    await asyncio.wait_for(events.wait(ends()), 60)


async def test_a_file_event_before_the_wait_ends_the_wait(folder, follow):
    events = follow(folder)
    (folder / "web.yaml").write_text("web 2")
    await asyncio.wait_for(events.wait(asyncio.Event().wait()), 60)


async def test_unrelated_events_do_not_end_the_wait(folder, follow):
    events = follow(folder)
    timer = asyncio.Event()
    waiting = asyncio.ensure_future(events.wait(timer.wait()))
    await asyncio.to_thread(str)
    (folder / "notes.txt").write_text("notes")
    for _ in range(10):
        await asyncio.to_thread(str)
    assert not waiting.done()
    timer.set()
    await asyncio.wait_for(waiting, 60)
