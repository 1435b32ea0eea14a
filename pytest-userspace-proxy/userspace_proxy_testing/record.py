"""The record of a failed test: its Services, faults and connections, as JSON.

    fixture ──take──▶ RecordedFixture ─┐
    failure of a phase ────────────────┴▶ RecordedTest ──write──▶ one file

Rule 1: docs/in-tests.md documents the fields; within a version, fields are only added.
Rule 2: this module doesn't replace the test's failure by another failure: unreadable parts are
described in the record, because an exception would end the whole run of pytest.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from userspace_proxy.facts import PortFacts
from userspace_proxy.facts.encoding import encode_answer

from .backend import Backend
from .decisions import Decision
from .http_serving import SeenRequest
from .report import Reported, describe
from .served_service import ServedService

VERSION = 1
# The number of characters of a test's name, counted from its end, that a file name contains; file
# names have at most 255 bytes.
_NAME_MAX = 120
_UNSAFE = re.compile(r"[^A-Za-z0-9._]+")


class RecordedBackend(msgspec.Struct, frozen=True):
    """A Service's backend."""

    name: str
    """The backend's name, such as ``web-1``."""
    address: str
    """The address at which the backend listens."""
    state: str
    """``stopped`` or ``draining``; empty while the backend serves."""
    requests: Sequence[SeenRequest] = ()
    """The last requests, oldest first; only for an HTTP server of the test."""


class RecordedService(msgspec.Struct, frozen=True):
    """The state of a Service when the test failed, or when the fixture ended."""

    service: str
    """The Service's name, such as ``default/web``."""
    address: str | None
    """The address that clients dial; null if not served."""
    seed: int
    """The ``seed`` argument of ``service`` that reproduces the choices."""
    settings: Mapping[str, Any]
    """The arguments of ``service`` that differ from the defaults."""
    backends: Sequence[RecordedBackend]
    """The backends in their order."""
    faults: Mapping[str, Sequence[str]]
    """Descriptions of active faults, by backend."""
    connections: Sequence[Decision]
    """The last ended connections, oldest first."""
    ports: Sequence[PortFacts]
    """The Service's ports, as in ``/api/v1/status``: endpoints, causes, counters."""


class RecordedFixture(msgspec.Struct, frozen=True):
    """A fixture of the kit that the test used."""

    fixture: str
    """``service_proxy``, ``service_network`` or ``kubernetes_services``."""
    services: Sequence[RecordedService]
    """The fixture's Services."""
    report: str
    """The text in the test's report."""

    @property
    def title(self) -> str:
        """The title of the fixture's section in the report."""
        return self.fixture.replace("_", " ")


class RecordedFailure(msgspec.Struct, frozen=True):
    """One failed phase of a test."""

    when: str
    """``setup``, ``call`` or ``teardown``."""
    time: float
    """Unix time at which the phase ended."""
    text: str
    """The failure in pytest's words."""
    fixtures: Sequence[RecordedFixture]
    """The kit's fixtures that the test used."""


class RecordedTest(msgspec.Struct):
    """A failed test; a rerun is a separate test."""

    test: str
    """pytest's name: ``tests/test_shop.py::test_it[one]``."""
    worker: str
    """pytest-xdist's worker; empty without one."""
    version: int = VERSION
    """The version of this format; within it, fields are only added, and keep their meaning."""
    failures: list[RecordedFailure] = []
    """The failures, at least one, in chronological order."""


def take(fixture: str, services: Reported) -> RecordedFixture:
    """Return the state of a fixture's Services; if it can't be read, the report states why."""
    try:
        report = describe(services)
        recorded = [_service(service) for service in services.services]
    except Exception as exc:  # noqa: BLE001 - rule 2
        return RecordedFixture(fixture, (), f"not known: {exc}")
    return RecordedFixture(fixture, recorded, report)


def _service(service: ServedService) -> RecordedService:
    try:
        address = str(service.address)
    except LookupError:
        address = None
    settings = {name: _plain(value) for name, value in service.settings.items()}
    seed = settings.get("seed", 0)
    return RecordedService(
        str(service.key),
        address,
        seed if isinstance(seed, int) else 0,
        settings,
        [_backend(backend) for backend in service.backends],
        service.faults,
        service.decisions,
        service.views(),
    )


def _backend(backend: Backend) -> RecordedBackend:
    requests = tuple(backend.requests)
    return RecordedBackend(backend.name, str(backend.address), backend.state, requests)


def _plain(value: object) -> object:
    """Convert an instance of a subclass of str or int to the built-in type, for JSON."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def write(folder: Path, test: RecordedTest, earlier: Path | None = None) -> Path:
    """Write a record into a folder, which is created if needed; return the file's path.

    Args:
        earlier: The same test's file to replace; None for a new file, with a name that no other
            test, process or rerun has.

    Raises:
        OSError: The folder can't be written.
    """
    data = json.dumps(json.loads(encode_answer(test)), indent=2).encode() + b"\n"
    if earlier is not None:
        earlier.write_bytes(data)
        return earlier
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / _file_name(test.test, number)
        try:
            file = path.open("xb")
        except FileExistsError:
            continue
        with contextlib.ExitStack() as undo, file:
            undo.callback(path.unlink)
            file.write(data)
            file.flush()
            undo.pop_all()
        return path
    raise AssertionError("numbers don't end")


def _file_name(test: str, number: int) -> str:
    # The hash distinguishes names that differ only in characters that are replaced or cut off.
    name = _UNSAFE.sub("-", test).strip("-.")[-_NAME_MAX:].strip("-.")
    digest = hashlib.blake2b(test.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    again = "" if number == 1 else f"-{number}"
    return f"{name}-{digest}{again}.json"
