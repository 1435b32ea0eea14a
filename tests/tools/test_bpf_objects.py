"""The proof that tracked BPF objects come from their sources; clang itself runs in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bpf_objects import ROOT, main, problems, sources


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "hooks.bpf.c"
    source.write_text("int hook;")
    return source


def upper(source: Path) -> bytes:
    return source.read_bytes().upper()


def test_an_object_that_its_source_makes_is_no_problem(source: Path) -> None:
    (source.parent / "hooks.bpf.o").write_bytes(b"INT HOOK;")
    assert list(problems([source], upper)) == []


def test_an_object_of_another_source_is_a_problem(source: Path) -> None:
    (source.parent / "hooks.bpf.o").write_bytes(b"INT OTHER;")
    assert list(problems([source], upper)) == [
        "hooks.bpf.o is not what hooks.bpf.c makes (make objects WRITE=1)"
    ]


def test_a_source_without_an_object_is_a_problem(source: Path) -> None:
    assert list(problems([source], upper)) == ["hooks.bpf.o is missing (make objects WRITE=1)"]


def test_all_tracked_sources_are_found() -> None:
    assert ROOT / "tests/node/dialled.bpf.c" in sources(ROOT)


def test_without_the_compiler_nothing_is_proved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main([]) == 1
    assert "no clang-14" in capsys.readouterr().err
