"""What a process of the control plane prints is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .child import Child

Start = Callable[[str], Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a shell with a script; it is killed at the end."""
    children: list[Child] = []

    def start_one(script: str) -> Child:
        children.append(Child(["sh", "-c", script], tmp_path / "log"))
        return children[-1]

    yield start_one
    for child in children:
        child.kill()


def test_what_is_printed_later_is_waited_for_from_a_place_in_the_log(
    start: Start, tmp_path: Path
) -> None:
    more = tmp_path / "more"
    child = start(f"echo ✓ 1 node; until [ -e {more} ]; do :; done; echo ✓ 2 nodes; exec sleep 100")
    first = child.wait_for_output(r"^✓ (\d) nodes?$")
    more.touch()
    second = child.wait_for_output(r"^✓ (\d) nodes?$", since=first.end())
    assert (first[1], second[1]) == ("1", "2")


def test_the_last_words_of_a_process_that_has_ended_are_found(start: Start) -> None:
    child = start("echo done")
    child.wait(20)
    assert child.wait_for_output("^done$")[0] == "done"


def test_a_process_that_ends_without_them_is_an_error_with_its_log(start: Start) -> None:
    with pytest.raises(AssertionError) as caught:
        start("echo no more; exit 7").wait_for_output("more to come")
    assert str(caught.value) == "sh ended by 7; the end of its log:\nno more"


def test_a_character_that_is_half_written_is_no_error(start: Start) -> None:
    assert start(r"printf 'a \342\234'; exec sleep 100").wait_for_output("^a .")[0] == "a \ufffd"
