"""The record of a failed test: its Services, faults and connections, as JSON.

    fixture ──take──▶ RecordedFixture ─┐
    failure of a phase ────────────────┴▶ RecordedTest ──write──▶ one file

Rule 1: the fields are those of docs/in-tests.md; within a version fields are only added.
Rule 2: a test that has failed stays the failure: what can't be read is worded in the record, and an
exception of this module would end the whole run of pytest.
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
# A file name has at most 255 bytes, of which these are the end of the test's name.
_NAME_MAX = 120
_UNSAFE = re.compile(r"[^A-Za-z0-9._]+")


class RecordedBackend(msgspec.Struct, frozen=True):
    """A backend of a Service."""

    name: str
    """``web-1``."""
    address: str
    """Where it listens."""
    state: str
    """``stopped``, ``draining``, or empty."""
    requests: Sequence[SeenRequest] = ()
    """The last ones that it saw, the oldest first; only of an HTTP server of the test."""


class RecordedService(msgspec.Struct, frozen=True):
    """A Service when the test failed, or when its fixture ended."""

    service: str
    """``default/web``."""
    address: str | None
    """What clients dial; null if it isn't served."""
    seed: int
    """What gives the same choices again, as an argument of ``service``."""
    settings: Mapping[str, Any]
    """The arguments of ``service`` that differ from the defaults."""
    backends: Sequence[RecordedBackend]
    """In their order."""
    faults: Mapping[str, Sequence[str]]
    """Those in force in words, by backend."""
    connections: Sequence[Decision]
    """The last ones that have ended, the oldest first."""
    ports: Sequence[PortFacts]
    """As in ``/api/v1/status``: endpoints, causes, counters."""


class RecordedFixture(msgspec.Struct, frozen=True):
    """A fixture of the kit, which the test has used."""

    fixture: str
    """``service_proxy``, ``service_network``, ``kubernetes_services``."""
    services: Sequence[RecordedService]
    """Those that it had."""
    report: str
    """What the test's report shows."""

    @property
    def title(self) -> str:
        """That of its section in the report."""
        return self.fixture.replace("_", " ")


class RecordedFailure(msgspec.Struct, frozen=True):
    """One phase of a test that failed."""

    when: str
    """``setup``, ``call``, ``teardown``."""
    time: float
    """Unix time at which the phase ended."""
    text: str
    """The failure as pytest shows it."""
    fixtures: Sequence[RecordedFixture]
    """Those of the kit that the test used."""


class RecordedTest(msgspec.Struct):
    """A test that failed; a second try of it is another one."""

    test: str
    """As pytest names it: ``tests/test_shop.py::test_it[one]``."""
    worker: str
    """That of pytest-xdist; empty without."""
    version: int = VERSION
    """Within a version fields are only added; those that are there keep names and meanings."""
    failures: list[RecordedFailure] = []
    """At least one, in the order of time."""


def take(fixture: str, services: Reported) -> RecordedFixture:
    """Return the Services of a fixture as they are now; if they have ended, the report says so."""
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
    """Return the text or number of a subclass as such, which JSON can have."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def write(folder: Path, test: RecordedTest, earlier: Path | None = None) -> Path:
    """Write a record into a folder, which is created.

    Args:
        earlier: The file of the same test, which is replaced. None: a new file, whose name no other
            test has, no other process and no other try of this test.

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
    # Other characters, and the rest of a long name, are in the hash.
    name = _UNSAFE.sub("-", test).strip("-.")[-_NAME_MAX:].strip("-.")
    digest = hashlib.blake2b(test.encode(errors="surrogatepass"), digest_size=4).hexdigest()
    again = "" if number == 1 else f"-{number}"
    return f"{name}-{digest}{again}.json"
