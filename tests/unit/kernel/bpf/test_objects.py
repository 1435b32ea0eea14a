from __future__ import annotations

import struct
from pathlib import Path

import pytest

from userspace_proxy.kernel.bpf.objects import (
    BpfObject,
    MapReference,
    MapSpec,
    ObjectError,
    Program,
    read_object,
)

COMPILED = (Path(__file__).parents[3] / "node" / "dialled.bpf.o").read_bytes()
LOAD_ADDRESS, EXIT = (struct.pack("=BBhi", code, 0, 0, 0) for code in (0x18, 0x95))


def parsed() -> BpfObject:
    return read_object(COMPILED)


def changed(before: bytes, after: bytes) -> bytes:
    assert COMPILED.count(before) == 1
    return COMPILED.replace(before, after)


def test_bpf_maps_have_the_sizes_declared_in_the_source() -> None:
    assert parsed().maps == {
        "endpoints": MapSpec(type=1, key_bytes=8, value_bytes=8, entries=16),
        "counts": MapSpec(type=1, key_bytes=8, value_bytes=24, entries=16),
        "connections": MapSpec(type=24, key_bytes=4, value_bytes=8, entries=0, flags=1),
    }


def test_object_sections_named_after_an_attach_point_are_programs() -> None:
    programs = parsed().programs
    assert [program.section for program in programs] == [
        "cgroup/connect4",
        "cgroup/getpeername4",
        "sockops",
    ]
    assert all(program.code[-8:] == EXIT for program in programs)


def test_map_references_point_to_load_instructions() -> None:
    connect4 = parsed().programs[0]
    assert [reference.map for reference in connect4.references] == ["endpoints", "connections"]
    assert {connect4.code[reference.offset] for reference in connect4.references} == {0x18}


def test_map_descriptors_are_inserted_into_a_program() -> None:
    program = Program("sockops", LOAD_ADDRESS + bytes(8) + EXIT, [MapReference(0, "counts")])
    linked = program.with_maps({"counts": 7, "others": 8})
    assert linked == struct.pack("=BBhi", 0x18, 0x10, 0, 7) + bytes(8) + EXIT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "unpack_from requires a buffer", id="empty"),
        pytest.param(b"#!/bin/sh\n" * 20, "64-bit ELF file", id="no-object"),
        pytest.param(COMPILED[:18] + b"\x3e\0" + COMPILED[20:], "64-bit ELF file", id="x86"),
        pytest.param(COMPILED[:-200], "unpack_from requires a buffer", id="cut"),
    ],
)
def test_an_invalid_bpf_object_file_raises_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ObjectError, match=message):
        read_object(data)


def test_a_reference_to_global_data_instead_of_a_map_is_an_error() -> None:
    # In a section with another name, the maps are global data.
    data = changed(b"\0maps\0", b"\0data\0")
    with pytest.raises(ObjectError, match=r"cgroup/connect4, instruction \d+: it refers to 'endpo"):
        read_object(data)
