"""goload's own tests, in Go, and its clients against its servers."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import benchmarks
from benchmarks.tools import build_tools
from tests.cluster.build import find_go

SOURCE = Path(benchmarks.__file__).parent / "goload"
DEADLINE_S = 300

# Go compiles its library the first time.
pytestmark = pytest.mark.long


@pytest.mark.parametrize("words", [("vet",), ("test", "-count=1")])
def test_go_finds_nothing_wrong(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [find_go(), *words, "."],
        cwd=SOURCE,
        env={**os.environ, "GOWORK": "off", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def goload() -> Iterator[str]:
    program = str(build_tools().goload)
    flags = ["--http=8080"]
    with subprocess.Popen([program, "serve", *flags], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield program
        server.kill()


def run(goload: str, *words: str) -> dict[str, float]:
    done = subprocess.run(
        [goload, *words], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    said: dict[str, float] = json.loads(done.stdout)
    return said


def test_an_open_loop_sends_every_request_of_its_schedule(goload: str) -> None:
    said = run(goload, "open", "--to=127.0.0.1:8080", "--rate=400", "--seconds=0.5")
    assert said["count"] == 200
    assert said["errors"] == 0
    assert 0 < said["p50_us"] <= said["p99_us"] <= said["p999_us"] <= said["max_us"]
