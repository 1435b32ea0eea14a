"""The machines in which kernels are tried: what is pure in them."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster.build import BuildError
from tests.kernels import uml
from tests.kernels.__main__ import (
    is_short,
    main,
    named_parts,
    parts_of,
    problems,
    results_of,
)
from tests.kernels.initramfs import archive, below
from tests.kernels.kernels import KERNELS, chosen, dependencies, uncompressed
from tests.kernels.qemu import ways
from tests.kernels.root import packages

from .clones import ROOT

TCG = ways()["tcg"]
DESCRIPTION = """\
Package: linux-image-7.3.4+deb13-amd64
Depends: initramfs-tools | dracut, linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1), linux-base (>= 4), \
linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1)
"""


def bz_image(payload: bytes, mark: bytes = b"HdrS") -> bytes:
    """Return an image with one sector of setup and four bytes before the payload."""
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = mark
    head[0x248:0x24C] = (4).to_bytes(4, "little")
    head[0x24C:0x250] = len(payload).to_bytes(4, "little")
    return bytes(head) + b"code" + payload + b"rest"


@pytest.mark.parametrize(
    "payload", [lzma.compress(b"\x7fELF"), gzip.compress(b"\x7fELF")], ids=["xz", "gzip"]
)
def test_a_kernel_is_uncompressed(payload: bytes) -> None:
    assert uncompressed(bz_image(payload + b"size")) == b"\x7fELF"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        pytest.param(bz_image(b"\x7fELF"), "unknown compression 7f454c46", id="compression"),
        pytest.param(bz_image(b"", b"MZ.."), "isn't a bzImage", id="no-image"),
    ],
)
def test_what_is_no_known_kernel_is_an_error(image: bytes, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        uncompressed(image)


def test_an_image_names_the_packages_with_its_parts() -> None:
    assert dependencies(DESCRIPTION, "base|binary|modules") == [
        "linux-binary-7.3.4+deb13-amd64",
        "linux-modules-7.3.4+deb13-amd64",
    ]


def test_an_archive_has_folders_before_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/nat.ko").write_bytes(b"module")
    files = {"init": b"#!/bin/sh\n", **dict(below(tmp_path, "lib/modules"))}
    made = archive(files, executable=["init"])
    assert list(read_archive(made)) == [
        ("lib", stat.S_IFDIR | 0o755, b""),
        ("lib/modules", stat.S_IFDIR | 0o755, b""),
        ("lib/modules/net", stat.S_IFDIR | 0o755, b""),
        ("init", stat.S_IFREG | 0o755, b"#!/bin/sh\n"),
        ("lib/modules/net/nat.ko", stat.S_IFREG | 0o644, b"module"),
    ]


def read_archive(made: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, mode and content, as the kernel reads them: parts begin at multiples of 4."""
    at = 0
    while True:
        assert made[at : at + 6] == b"070701"
        fields = [int(made[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = made[at + 110 : at + 110 + name_size].rstrip(b"\0").decode()
        begin = -(-(at + 110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return
        yield name, mode, made[begin : begin + size]
        at = -(-(begin + size) // 4) * 4


def test_the_table_of_needed_programs_names_the_packages_of_a_root() -> None:
    named = packages((ROOT / "tests/tools/prepare.sh").read_text())
    assert {"iptables", "libc6-dev", "python3-dev"} <= {*named}
    assert "chromium" not in named
    assert "part" not in named


def test_without_labels_all_kernels_are_chosen() -> None:
    assert chosen([]) == [*KERNELS]
    assert [kernel.label for kernel in chosen(["newest", "5.10"])] == ["5.10", "newest"]


def test_tests_are_left_to_user_mode_linux_where_the_processor_is_emulated() -> None:
    stock, all_labels = KERNELS[1], {"6.1", "uml-6.1"}
    assert parts_of(stock, TCG, all_labels) == ("smoke",)
    assert parts_of(stock, TCG, {"6.1"}) == ("smoke", "marked")
    assert parts_of(stock, replace(TCG, name="kvm"), all_labels) == ("smoke", "marked")
    assert parts_of(uml.WHOLE, replace(TCG, name="uml"), all_labels) == ("smoke", "marked")


def test_an_unknown_label_is_an_error() -> None:
    with pytest.raises(BuildError, match=r"there is no kernel 5\.4"):
        chosen(["5.4"])


def test_a_misspelt_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert named_parts("marked,smoke") == ["smoke", "marked"]
    for words in ("smoke,maked", ""):
        with pytest.raises(SystemExit):
            main([f"--parts={words}"])
        assert "there is no part" in capsys.readouterr().err


def test_a_part_alone_does_not_replace_the_results_of_a_usual_run() -> None:
    assert is_short(["smoke"])
    assert is_short(["marked", "full"])
    assert not is_short(["smoke", "marked"])
    assert not is_short(["smoke", "full"])


def test_results_have_what_the_machine_left(tmp_path: Path) -> None:
    rows = [
        {"what": "auto: start", "outcome": "ok", "seconds": 3.0, "words": ""},
        {"what": "demo: start", "outcome": "failed", "seconds": 60.0, "words": "not ready"},
    ]
    smoke = {"kernel": "5.10.0-46-amd64", "arch": "x86_64", "lacks": {"fib": "no"}, "smoke": rows}
    found = {
        "passed": 3,
        "failed": ["a::b"],
        "second_tries": ["a::d"],
        "left_out": [["fib", "a::c"]],
    }
    tests = found | {"seconds": {}}
    (tmp_path / "smoke.json").write_text(json.dumps(smoke))
    (tmp_path / "tests.json").write_text(json.dumps(tests))
    results = results_of(KERNELS[0], TCG, tmp_path)
    assert results == {
        "kernel": "5.10.0-46-amd64",
        "label": "5.10",
        "arch": "x86_64",
        "way": "tcg",
        "userland": "bookworm",
        "lacks": {"fib": "no"},
        "smoke": rows,
        "tests": found,
    }
    assert problems(results) == ["demo: start: not ready", "a::b"]


TESTS = """
from pathlib import Path
import pytest

def test_whole():
    pass

def test_once():
    tried = Path(__file__).with_name("tried")
    if not tried.exists():
        tried.touch()
        raise AssertionError

def test_never():
    raise AssertionError

def test_elsewhere():
    pytest.skip("no such program")
"""


def test_what_passes_only_at_a_second_try_is_recorded_as_such(tmp_path: Path) -> None:
    (tmp_path / "test_two.py").write_text(TESTS)
    # Other plugins warn of what is missing in the folder, and warnings may be errors.
    words = "-q -p no:asyncio -p tests.kernels.recorder"
    words += f" -o cache_dir={tmp_path}/cache --record={tmp_path}"
    for more in ("", "--again --last-failed"):
        run = [sys.executable, "-m", "pytest", *words.split(), *more.split(), "test_two.py"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(run, cwd=tmp_path, env=env, check=False, timeout=60, capture_output=True)
    found = results_of(KERNELS[0], TCG, tmp_path)["tests"]
    assert (found["passed"], found["failed"]) == (2, ["test_two.py::test_never"])
    assert found["second_tries"] == ["test_two.py::test_once"]
    assert [test for _, test in found["left_out"]] == ["test_two.py::test_elsewhere"]


def test_a_machine_that_left_nothing_has_results_without_rows(tmp_path: Path) -> None:
    results = results_of(KERNELS[0], TCG, tmp_path)
    assert (results["smoke"], results["tests"]["passed"]) == ([], 0)
