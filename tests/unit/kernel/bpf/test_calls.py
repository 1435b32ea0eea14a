from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct

import pytest

from userspace_proxy.kernel.bpf import calls
from userspace_proxy.kernel.bpf.calls import as_locked_memory, load_program, reason_of, types_of

LOG = """\
0: R1=ctx() R10=fp0
0: (95) exit
R0 !read_ok
verification time 22 usec
stack depth 0
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
EXPLAINED = """\
0: (95) exit
R0 !read_ok

Verification failed: Register Type Safety: Unreadable register

Suggestion:
  Initialize R0 on every path before this instruction.

processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        pytest.param(LOG, "R0 !read_ok", id="refused"),
        pytest.param(EXPLAINED, "R0 !read_ok", id="explained"),
        pytest.param("", "without a reason", id="before-the-verifier"),
    ],
)
def test_the_rejection_reason_is_extracted_from_the_verifier_log(log: str, reason: str) -> None:
    assert reason_of(log) == reason


def test_btf_contains_an_integer_and_a_structure_as_large_as_a_map_value() -> None:
    types = types_of(24)
    magic, _, _, header_bytes, start, length, names, names_bytes = struct.unpack_from(
        "=HBBIIIII", types
    )
    assert (magic, header_bytes, start, names) == (0xEB9F, 24, 0, length)
    assert len(types) == header_bytes + length + names_bytes
    assert struct.unpack_from("=IIII", types, 24) == (1, 1 << 24, 4, 32)
    assert struct.unpack_from("=III", types, 40) == (3, 4 << 24, 24)


def test_bpf_programs_do_not_load_on_unknown_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(PermissionError, match="on pdp11 isn't known") as raised:
        load_program("sockops", b"")
    assert raised.value.errno == errno.EPERM


def test_the_locked_memory_limit_is_raised_and_restored():
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
    try:
        with as_locked_memory():
            meanwhile, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
            assert meanwhile in (hard, resource.RLIM_INFINITY)
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (0, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


class ShortOfMemory:
    """A kernel whose first element updates fail with ENOMEM."""

    def __init__(self, refused: int) -> None:
        self.left = refused

    def syscall(self, *_: object) -> int:
        if not self.left:
            return 0
        self.left -= 1
        ctypes.set_errno(errno.ENOMEM)
        return -1


def test_an_element_update_is_retried_after_enomem(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = ShortOfMemory(3)
    monkeypatch.setattr(calls, "_libc", kernel)
    calls.update(3, b"key", b"value")
    assert kernel.left == 0


def test_an_element_update_fails_after_a_lasting_enomem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_libc", ShortOfMemory(1000))
    with pytest.raises(OSError, match="Cannot allocate"):
        calls.update(3, b"key", b"value")
