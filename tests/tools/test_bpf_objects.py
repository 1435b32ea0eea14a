"""The proof that tracked BPF objects come from their sources; clang itself runs in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bpf_objects import ROOT, problems, sources


@pytest.mark.parametrize(
    ("compiled", "problem"),
    [
        (b"INT HOOK;", []),
        (b"INT OTHER;", ["hooks.bpf.o is not what hooks.bpf.c makes (make objects WRITE=1)"]),
        (None, ["hooks.bpf.o is missing (make objects WRITE=1)"]),
    ],
)
def test_an_object_is_what_its_source_makes(
    compiled: bytes | None, problem: list[str], tmp_path: Path
) -> None:
    source = tmp_path / "hooks.bpf.c"
    source.write_text("int hook;")
    if compiled is not None:
        (tmp_path / "hooks.bpf.o").write_bytes(compiled)
    assert list(problems([source], lambda path: path.read_bytes().upper())) == problem


def test_all_tracked_sources_are_found() -> None:
    assert ROOT / "tests/node/dialled.bpf.c" in sources(ROOT)
