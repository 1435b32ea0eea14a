"""A package of a lock without a wheel for a Python or machine is found."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZipFile

import pytest

from .locked_wheels import missing_wheels


def make_wheel(folder: Path, tags: str) -> str:
    """Write an empty wheel of ``shop`` 1.0; return its hash, as a lock has it."""
    path = folder / f"shop-1.0-{tags}.whl"
    with ZipFile(path, "w") as archive:
        info = "shop-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tags}\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"--hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock of a package with wheels for one Python on one machine, and for another on both."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    hashes = [
        make_wheel(wheels, f"cp{python}-cp{python}-manylinux_2_17_{machine}")
        for python, machine in (("311", "x86_64"), ("313", "x86_64"), ("313", "aarch64"))
    ]
    path = tmp_path / "requirements.lock"
    path.write_text(f"shop==1.0 {' '.join(hashes)}\n")
    return path


def test_wheels_for_all_machines_are_no_problem(lock: Path) -> None:
    assert list(missing_wheels(lock, ["3.13"])) == []


def test_what_is_missing_is_named_with_its_python_and_machine(lock: Path) -> None:
    (line,) = missing_wheels(lock, ["3.11", "3.13"])
    assert line.startswith("requirements.lock, Python 3.11, aarch64: ")
    assert "shop==1.0 has no" in line
