"""Parses an ELF file of BPF programs as clang compiles it, without type information.

A map is a variable of five words in the section ``maps``, as in :class:`MapSpec`. A program is a
section whose name states its hook. It may refer only to maps: no global data, and no functions that
aren't inlined.

Source: elf(5); linux/elf-em.h; llvm/BinaryFormat/ELFRelocs/BPF.def.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...errors import InputError

_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_REFERENCE = struct.Struct("<QII")
_MAP = struct.Struct("<5I")
_MACHINE_BPF = 247
_SYMBOLS, _REFERENCES = 2, 9
_TO_A_MAP = 1
_MAPS = "maps"
_INSTRUCTION_BYTES = 8
# BPF_PSEUDO_MAP_FD, in the upper half of an instruction's second byte.
_BY_DESCRIPTOR = 1 << 4


class HookKind(NamedTuple):
    """The kernel's numbers for a program type and an attach type."""

    program: int
    attach: int


# Source: linux/bpf.h: enum bpf_prog_type, enum bpf_attach_type.
KINDS: Mapping[str, HookKind] = {
    "cgroup/connect4": HookKind(18, 10),
    "cgroup/connect6": HookKind(18, 11),
    "cgroup/getpeername4": HookKind(18, 29),
    "cgroup/getpeername6": HookKind(18, 30),
    "cgroup/sock_release": HookKind(9, 34),
    "sockops": HookKind(13, 3),
}
"""The section names of programs, with the kind of each program."""


class MapSpec(NamedTuple):
    """The type, sizes and flags of a map; the type is a value of ``enum bpf_map_type``."""

    type: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int = 0


class MapReference(NamedTuple):
    """An instruction that loads the address of a map."""

    offset: int
    map: str


@dataclass(frozen=True, slots=True)
class Program:
    """One program, whose references to maps aren't resolved yet."""

    section: str
    """A key of :data:`KINDS`."""
    code: bytes
    references: Sequence[MapReference]

    def with_maps(self, descriptors: Mapping[str, int]) -> bytes:
        """Return the instructions with the descriptors of the maps, as the kernel expects them."""
        code = bytearray(self.code)
        for offset, name in self.references:
            code[offset + 1] |= _BY_DESCRIPTOR
            struct.pack_into("<i", code, offset + 4, descriptors[name])
        return bytes(code)


@dataclass(frozen=True, slots=True)
class BpfObject:
    """The programs and maps of one file."""

    maps: Mapping[str, MapSpec]
    programs: Sequence[Program]


class ObjectError(InputError):
    """The file isn't a loadable BPF object."""


def read_object(data: bytes) -> BpfObject:
    """Parse a file; the programs are in the order of the file.

    Raises:
        ObjectError: The file isn't a BPF object, or its programs refer to anything but maps.
    """
    try:
        return _Elf(data).read()
    except (struct.error, IndexError, UnicodeDecodeError) as exc:
        raise ObjectError(f"cannot read a BPF object: {exc}") from exc


class _Section(NamedTuple):
    name: str
    type: int
    body: bytes
    link: int
    applies_to: int


class _Elf:
    def __init__(self, data: bytes) -> None:
        header = _HEADER.unpack_from(data)
        if header[0][: len(_MAGIC)] != _MAGIC or header[2] != _MACHINE_BPF:
            raise ObjectError("cannot read a BPF object: it isn't a 64-bit ELF file for BPF")
        start, count, names = header[6], header[12], header[13]
        rows = [_SECTION.unpack_from(data, start + _SECTION.size * at) for at in range(count)]
        bodies = [data[row[4] : row[4] + row[5]] for row in rows]
        self._sections = [
            _Section(_text(bodies[names], row[0]), row[1], body, row[6], row[7])
            for row, body in zip(rows, bodies, strict=True)
        ]
        self._symbols = [
            (_text(self._sections[table.link].body, name), where, offset)
            for table in self._sections
            if table.type == _SYMBOLS
            for name, _, _, where, offset, _ in _SYMBOL.iter_unpack(table.body)
        ]

    def read(self) -> BpfObject:
        maps = {
            name: MapSpec(*_MAP.unpack_from(self._sections[where].body, offset))
            for name, where, offset in self._symbols
            # Other numbers aren't sections: they mark undefined symbols, or the file's symbol.
            if 0 < where < len(self._sections) and self._sections[where].name == _MAPS
        }
        programs = [
            Program(section.name, section.body, self._references(at, maps))
            for at, section in enumerate(self._sections)
            if section.name in KINDS
        ]
        return BpfObject(maps, programs)

    def _references(self, at: int, maps: Mapping[str, MapSpec]) -> list[MapReference]:
        found = []
        bodies = (s.body for s in self._sections if s.type == _REFERENCES and s.applies_to == at)
        for offset, kind, symbol in (
            row for body in bodies for row in _REFERENCE.iter_unpack(body)
        ):
            name = self._symbols[symbol][0]
            if kind != _TO_A_MAP or name not in maps:
                where = f"{self._sections[at].name}, instruction {offset // _INSTRUCTION_BYTES}"
                raise ObjectError(f"cannot load {where}: it refers to {name!r}, which is no map")
            found.append(MapReference(offset, name))
        return found


def _text(strings: bytes, offset: int) -> str:
    return strings[offset:].partition(b"\0")[0].decode()
