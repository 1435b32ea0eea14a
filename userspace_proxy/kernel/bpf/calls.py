"""Calls bpf(2): creates, reads and changes maps, programs, links, pins and elements.

The caller owns each returned descriptor. A map or program exists while a descriptor, link or pin
refers to it; a program is attached while its link exists. If the kernel refuses a call, functions
raise an OSError.

Linux before 5.11 counts the maps and programs of a user as locked memory; see ``as_locked_memory``.

Source: bpf(2); linux/bpf.h: union bpf_attr; Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .objects import KINDS, BpfObject, MapSpec

# The system call number of bpf(2), by architecture. Source: asm/unistd.h.
_NUMBER = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _LOAD, _PIN, _PINNED = 0, 1, 2, 3, 5, 6, 7
_PROGRAM_BY_ID, _INFO, _QUERY, _TYPES_LOAD = 13, 15, 16, 18
_LOOKUP_BATCH, _UPDATE_BATCH, _DELETE_BATCH = 24, 26, 27
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 28, 29, 34
_SOCKET_STORAGE = 24
_LICENCE = b"GPL"
_NAME_BYTES = 15
_INSTRUCTION_BYTES = 8
# The size at which the verifier's log is truncated; 1,000 instructions log 100 KB.
_LOG_BYTES = 1 << 20
# The beginnings of log lines that don't contain the reason. Source: print_verification_stats().
_STATISTICS = ("processed ", "verification time", "stack depth")
# The line after which Linux 7.3 and later explain the reason in paragraphs.
_EXPLANATION = "\nVerification failed: "
# The fields of union bpf_attr that are used here.
_MAP_FIELDS = struct.Struct("=7I16sIIII")
_PROGRAM_FIELDS = struct.Struct("=IIQQIIQII16sII")
_TYPES_FIELDS = struct.Struct("=QQIII")
_PIN_FIELDS = struct.Struct("=QII")
_LINK_FIELDS = struct.Struct("=IIII")
_ELEMENT_FIELDS = struct.Struct("=IIQQQ")
_BATCH_FIELDS = struct.Struct("=QQQQIIQQ")
_ID_FIELDS = struct.Struct("=III")
_INFO_FIELDS = struct.Struct("=IIQ")
_QUERY_FIELDS = struct.Struct("=IIIIQI4x")
# The fields of struct bpf_map_info, bpf_prog_info and bpf_link_info that are used here.
_MAP_INFO = struct.Struct("=I4xIIII16s")
_PROGRAM_INFO = struct.Struct("=4xI8s48x16s")
_LINK_INFO = struct.Struct("=8xI4xQI4x")
# The program of try_programs(): r0 = 1; exit.
_ALLOW = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 1, 0x95, 0, 0, 0)
# The maximum number of programs at a hook: the kernel refuses to attach more.
_PROGRAMS_MAX = 64
_BATCH = 4096

# The number of retries if the kernel lacks memory for elements, and the pause in seconds.
_TRIES, _REFILL_S = 20, 0.001

_libc = ctypes.CDLL(None, use_errno=True)


class ProgramInfo(NamedTuple):
    """A program's id, tag and name, as the kernel reports them."""

    id: int
    tag: bytes
    """The kernel's digest of the program's instructions, without the maps."""
    name: str


class LinkInfo(NamedTuple):
    """A link to a cgroup, as the kernel reports it."""

    program: int
    """The id of the attached program."""
    cgroup: int
    """The inode number of the cgroup's directory; 0 if the link was detached."""


@contextlib.contextmanager
def as_locked_memory() -> Iterator[None]:
    """Lift the limit of locked memory within the ``with`` block, or raise it as far as permitted.

    Linux before 5.11 counts maps and programs of all the user's processes as locked memory.
    """
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in ((resource.RLIM_INFINITY,) * 2, (before[1],) * 2):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
            break
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def create_map(name: str, spec: MapSpec) -> int:
    """Return the descriptor of a new map."""
    label = name.encode()[:_NAME_BYTES]
    if spec.type != _SOCKET_STORAGE:
        return _call(_MAP_CREATE, _MAP_FIELDS.pack(*spec, 0, 0, label, 0, 0, 0, 0))
    types = _load_types(spec.value_bytes)
    try:
        return _call(_MAP_CREATE, _MAP_FIELDS.pack(*spec, 0, 0, label, 0, types, 1, 2))
    finally:
        os.close(types)


def load_program(section: str, code: bytes) -> int:
    """Return the descriptor of a new program, which the kernel has verified.

    Args:
        section: A key of ``KINDS``.
        code: Instructions, with the descriptors of maps.

    Raises:
        OSError: The kernel refused the program; except for EPERM, the message contains the
            verifier's reason.
    """
    try:
        return _load(section, code)
    except OSError as exc:
        if exc.errno == errno.EPERM:
            # This process may not load programs, so the verifier hasn't run.
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load(section, code, log)
        except OSError:
            reason = reason_of(log.value.decode(errors="replace"))
            raise OSError(exc.errno, f"{exc.strerror} ({section}: {reason})") from exc


def try_programs() -> None:
    """Load a program that is never attached.

    Raises:
        OSError: The kernel refused it. The program is for the newest hook of :data:`KINDS` (Linux
            5.9); a kernel with this hook also has the other hooks.
    """
    # The user's other processes may have used up the limit of locked memory, so lift it.
    with as_locked_memory():
        os.close(load_program("cgroup/sock_release", _ALLOW))


def load_object(parts: BpfObject, maps: Mapping[str, int]) -> dict[str, int]:
    """Load all programs of an object; return their descriptors by section.

    Args:
        maps: The descriptor of each map to which the programs refer.

    Raises:
        OSError: The kernel refused a program; nothing stays loaded.
    """
    loaded: dict[str, int] = {}
    try:
        for program in parts.programs:
            loaded[program.section] = load_program(program.section, program.with_maps(maps))
    except OSError:
        for descriptor in loaded.values():
            os.close(descriptor)
        raise
    return loaded


def attach(section: str, program: int, cgroup: int) -> int:
    """Attach a program; return the link's descriptor. Other programs stay attached.

    Args:
        section: A key of ``KINDS``.
        cgroup: A descriptor of a cgroup v2 directory; its descendants are also covered.
    """
    return _call(_LINK_CREATE, _LINK_FIELDS.pack(program, cgroup, KINDS[section].attach, 0))


def replace_program(link: int, program: int) -> None:
    """Atomically replace the program of a link with another program of the same kind."""
    _call(_LINK_UPDATE, _LINK_FIELDS.pack(link, program, 0, 0))


def detach(link: int) -> None:
    """Detach a link for good, even if other descriptors or pins refer to it."""
    _call(_LINK_DETACH, struct.pack("=I", link))


def attached(section: str, cgroup: int) -> tuple[int, list[int]]:
    """Return a hook's attach flags, and the ids of a cgroup's own programs in execution order."""
    ids = (ctypes.c_uint32 * _PROGRAMS_MAX)()
    where = ctypes.addressof(ids)
    asked = _QUERY_FIELDS.pack(cgroup, KINDS[section].attach, 0, 0, where, _PROGRAMS_MAX)
    answer = ctypes.create_string_buffer(asked, len(asked))
    _call_in(_QUERY, answer)
    *_, flags, _, count = _QUERY_FIELDS.unpack(answer)
    return flags, list(ids[:count])


def program_name(identifier: int) -> str:
    """Return a program's name; empty if the program no longer exists, or without CAP_SYS_ADMIN."""
    try:
        program = _call(_PROGRAM_BY_ID, _ID_FIELDS.pack(identifier, 0, 0))
    except OSError:
        return ""
    try:
        return program_info(program).name
    finally:
        os.close(program)


def program_info(program: int) -> ProgramInfo:
    """Return a program's id, tag and name."""
    number, tag, name = _PROGRAM_INFO.unpack(_info(program, _PROGRAM_INFO.size))
    return ProgramInfo(number, tag, name.partition(b"\0")[0].decode(errors="replace"))


def link_info(link: int) -> LinkInfo:
    """Return the program and the cgroup of a link."""
    program, cgroup, _ = _LINK_INFO.unpack(_info(link, _LINK_INFO.size))
    return LinkInfo(program, cgroup)


def map_info(table: int) -> MapSpec:
    """Return the type, sizes and flags with which a map was created."""
    *spec, _ = _MAP_INFO.unpack(_info(table, _MAP_INFO.size))
    return MapSpec(*spec)


def memory_of(table: int) -> int:
    """Return the bytes that the kernel counts for a map (before 6.4, as if full); 0 if unknown."""
    for line in Path(f"/proc/self/fdinfo/{table}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "memlock":
            return int(value)
    return 0


def pin(descriptor: int, path: Path) -> None:
    """Pin a map, program or link in a mount of bpffs.

    Raises:
        OSError: The path is taken or isn't in a bpffs, or permission is denied.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    _call(_PIN, _PIN_FIELDS.pack(ctypes.addressof(name), descriptor, 0))


def pinned(path: Path) -> int:
    """Return a descriptor of the object pinned at a path.

    Raises:
        OSError: Nothing is pinned there, or permission is denied.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    return _call(_PINNED, _PIN_FIELDS.pack(ctypes.addressof(name), 0, 0))


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Set one element atomically; wait for memory, like :func:`update_batch`."""
    with_value = ctypes.create_string_buffer(value, len(value))
    for tries in range(_TRIES + 1):
        try:
            _element(_UPDATE, descriptor, key, with_value)
        except OSError as exc:
            if exc.errno != errno.ENOMEM or tries == _TRIES:
                raise
            time.sleep(_REFILL_S)  # noqa: TID251 - no event reports free memory
        else:
            return


def lookup(descriptor: int, key: bytes, value_bytes: int) -> bytes | None:
    """Return an element's value (in a per-CPU map, all possible CPUs' values); None if missing."""
    value = ctypes.create_string_buffer(value_bytes)
    return value.raw if _element(_LOOKUP, descriptor, key, value) else None


def delete(descriptor: int, key: bytes) -> bool:
    """Remove one element; return whether it existed."""
    return _element(_DELETE, descriptor, key, None)


def update_batch(descriptor: int, keys: bytes, values: bytes, count: int) -> None:
    """Set many elements; 30,000 take 10 to 20 ms. If an element fails, earlier elements stay set.

    From Linux 6.1 on, each CPU has a small reserve of memory for elements, which is refilled after
    a moment. If a batch exhausts it, this call waits; after 20 ms without progress, it raises an
    OSError (ENOMEM).
    """
    key, value = (ctypes.create_string_buffer(x, len(x)) for x in (keys, values))
    key_bytes, value_bytes = len(keys) // count, len(values) // count
    done = tries = 0
    while done < count:
        at = (
            ctypes.addressof(key) + done * key_bytes,
            ctypes.addressof(value) + done * value_bytes,
        )
        left = count - done
        batch = _Batch(_UPDATE_BATCH, descriptor, 0, 0, *at, left, end_by=errno.ENOMEM)
        done += batch.count
        tries = tries + 1 if not batch.count else 0
        if tries > _TRIES:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        if batch.is_at_end:
            time.sleep(_REFILL_S)  # noqa: TID251 - no event reports free memory


def delete_batch(descriptor: int, keys: Sequence[bytes]) -> None:
    """Remove many elements; missing elements are skipped."""
    if not keys:
        return
    packed = ctypes.create_string_buffer(b"".join(keys))
    begin, done = ctypes.addressof(packed), 0
    while done < len(keys):
        where = begin + done * len(keys[0])
        batch = _Batch(_DELETE_BATCH, descriptor, 0, 0, where, 0, len(keys) - done)
        # The kernel stops at the first missing key: skip it.
        done += batch.count + batch.is_at_end


def elements(descriptor: int, spec: MapSpec) -> list[tuple[bytes, bytes]]:
    """Return a hash map's elements; if it changes meanwhile, some may be missing or duplicated."""
    found: list[tuple[bytes, bytes]] = []
    # A batch contains whole buckets, which are never large, so this size suffices.
    count = min(spec.entries, _BATCH)
    keys, values = (
        ctypes.create_string_buffer(size * count) for size in (spec.key_bytes, spec.value_bytes)
    )
    place = ctypes.create_string_buffer(max(spec.key_bytes, 4))
    at, begin = ctypes.addressof(place), 0
    while True:
        where = ctypes.addressof(keys), ctypes.addressof(values)
        batch = _Batch(_LOOKUP_BATCH, descriptor, begin, at, *where, count)
        found += zip(
            _cut(keys.raw, spec.key_bytes, batch.count),
            _cut(values.raw, spec.value_bytes, batch.count),
            strict=True,
        )
        if batch.is_at_end:
            return found
        begin = at


def reason_of(log: str) -> str:
    """Return the verifier's reason from its log; ``without a reason`` if the log contains none."""
    said, _, _ = log.partition(_EXPLANATION)
    lines = [x for x in said.splitlines() if x.strip() and not x.startswith(_STATISTICS)]
    return lines[-1] if lines else "without a reason"


def types_of(value_bytes: int) -> bytes:
    """Return BTF with two types: 1 is an integer, 2 is a structure without fields.

    Socket storage requires a 32-bit integer for keys; the type for values must have their size.
    Source: bpf_local_storage_map_check_btf() and map_check_btf() in kernel/bpf.
    """
    integer = struct.pack("=IIII", 1, 1 << 24, 4, 32)
    structure = struct.pack("=III", 3, 4 << 24, value_bytes)
    types, names = integer + structure, b"\0u\0v\0"
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    return header + types + names


def _load_types(value_bytes: int) -> int:
    types = types_of(value_bytes)
    blob = ctypes.create_string_buffer(types, len(types))
    return _call(_TYPES_LOAD, _TYPES_FIELDS.pack(ctypes.addressof(blob), 0, len(types), 0, 0))


def _load(section: str, code: bytes, log: ctypes.Array[ctypes.c_char] | None = None) -> int:
    kind = KINDS[section]
    insns, licence = (ctypes.create_string_buffer(x) for x in (code, _LICENCE))
    where = ctypes.addressof(insns), ctypes.addressof(licence)
    noted = (0, 0, 0) if log is None else (1, len(log), ctypes.addressof(log))
    name = section.rpartition("/")[2].encode()[:_NAME_BYTES]
    count = len(code) // _INSTRUCTION_BYTES
    return _call(
        _LOAD,
        _PROGRAM_FIELDS.pack(kind.program, count, *where, *noted, 0, 0, name, 0, kind.attach),
    )


class _Batch:
    """One call of a batch command, and its result."""

    def __init__(
        self,
        command: int,
        table: int,
        begin: int,
        end: int,
        keys: int,
        values: int,
        count: int,
        *,
        end_by: int = errno.ENOENT,
    ) -> None:
        asked = _BATCH_FIELDS.pack(begin, end, keys, values, count, table, 0, 0)
        answer = ctypes.create_string_buffer(asked, len(asked))
        self.is_at_end = False
        """Whether ``end_by`` ended the call: no element or memory is left, or a key is missing."""
        try:
            _call_in(command, answer)
        except OSError as exc:
            if exc.errno != end_by:
                raise
            self.is_at_end = True
        self.count = int(_BATCH_FIELDS.unpack(answer)[4])
        """The number of elements that the kernel processed."""


def _cut(data: bytes, size: int, count: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, size * count, size)]


def _info(descriptor: int, size: int) -> bytes:
    info = ctypes.create_string_buffer(size)
    _call(_INFO, _INFO_FIELDS.pack(descriptor, size, ctypes.addressof(info)))
    return info.raw


def _element(
    command: int, descriptor: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None
) -> bool:
    """Make a call for one element; return whether the element existed."""
    buffer = ctypes.create_string_buffer(key, len(key))
    where = ctypes.addressof(buffer), 0 if value is None else ctypes.addressof(value)
    try:
        _call(command, _ELEMENT_FIELDS.pack(descriptor, 0, *where, 0))
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return False
    return True


def _call(command: int, attributes: bytes) -> int:
    return _call_in(command, ctypes.create_string_buffer(attributes, len(attributes)))


def _call_in(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """Call bpf(2) and return its result; the kernel may write into the attributes."""
    number = _NUMBER.get(platform.machine())
    if number is None:
        # Don't raise ENOSYS: the machine may have the call, under a number that isn't known here.
        unknown = f"cannot call bpf(2): its number on {platform.machine()} isn't known"
        raise PermissionError(errno.EPERM, unknown)
    result = int(_libc.syscall(number, command, attributes, len(attributes)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
