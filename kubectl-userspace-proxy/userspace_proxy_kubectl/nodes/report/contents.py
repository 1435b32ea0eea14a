"""Makes a report's files from gathered material.

    Material ──each text made safe──▶ values ──▶ nodes.txt, nodes/*, logs/*, services/*, README.txt

Rule 1: the lists of files and of missing parts are written last, so they are complete.
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from userspace_proxy.facts.encoding import encode_answer
from userspace_proxy.facts.units import plural
from userspace_proxy.model.quoting import printable_lines
from userspace_proxy.version import __version__, own_commit

from ..agent_answer import AgentAnswer, AllNodes
from ..as_json import nodes_to_json, status_to_json
from ..merged import merge
from ..text import render_nodes, render_status
from .archive import ReportFile
from .gathering import Material, Missing
from .objects import learn_names, safe_object
from .scrubbing import Scrubber

STATUS_BYTES = 256 << 20
"""The maximum number of bytes of all answers together."""
_LISTS = 2


@dataclass(slots=True)
class _Listing:
    """The lists of a report's files and missing parts, for its index."""

    files: list[tuple[str, int, str]] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def file(self, path: str, body: bytes, what: str) -> ReportFile:
        file = _readable(path, body)
        self.files.append((path, len(file.body), what))
        return file


class Contents:
    """One report's files.

    Args:
        scrubber: Makes strings safe; knows all names that could be listed.
    """

    def __init__(self, material: Material, scrubber: Scrubber) -> None:
        scrubber.learn(material.all_nodes)
        for one in material.objects:
            for item in one.items:
                learn_names(item, scrubber)
        for log in material.logs:
            scrubber.learn_from(log.text)
        self._material = material
        self._scrubber = scrubber
        self._all_nodes = _in_new_order(
            scrubber.value(material.all_nodes), has_new_names=scrubber.pseudonyms is not None
        )
        self._listing = _Listing()
        self._paths: set[str] = set()

    @property
    def missing(self) -> Sequence[Missing]:
        """The missing parts, in the words of the archive; complete once all files are consumed."""
        return self._listing.missing

    @property
    def count(self) -> int:
        """The number of files; complete once all files are consumed."""
        return len(self._listing.files) + _LISTS

    def files(self) -> Iterator[ReportFile]:
        """Yield all files, the lists of files last."""
        text = self._scrubber.text
        self._listing.missing = [
            Missing(text(one.what), text(one.why)) for one in self._material.missing
        ]
        yield from self._overview()
        yield from self._answers()
        yield from self._logs()
        yield from self._objects()
        yield from self._lists()

    def _overview(self) -> Iterator[ReportFile]:
        merged = merge(self._all_nodes)
        table, words = render_nodes(merged), render_status(merged, is_wide=True)
        for path, body, what in (
            ("status.txt", words.body, "how Services fare, over all nodes"),
            ("status.json", status_to_json(merged), "the same as JSON"),
            ("nodes.txt", table.body, "the nodes, those with problems first"),
            ("nodes.json", nodes_to_json(merged), "the same as JSON"),
            ("versions.json", _json(self._versions()), "versions of all programs"),
            ("settings.json", _json(self._settings()), "settings that aren't the default, by node"),
        ):
            yield self._listing.file(path, body, what)

    def _versions(self) -> dict[str, Any]:
        statuses = [one.status for one in self._all_nodes.answers if one.status is not None]
        agents = Counter(f"{one.version} {one.commit}".strip() for one in statuses)
        version = self._material.server_version
        return {
            "report": {
                "version": __version__,
                "commit": own_commit(),
                "python": platform.python_version(),
                "system": platform.system(),
            },
            "agents": dict(sorted(agents.items())),
            "api_server": {name: self._scrubber.word(text) for name, text in version.items()},
        }

    def _settings(self) -> dict[str, Any]:
        return {one.node: one.status.settings for one in self._all_nodes.answers if one.status}

    def _answers(self) -> Iterator[ReportFile]:
        left = STATUS_BYTES
        for answer in self._all_nodes.answers:
            if answer.status is None:
                continue
            body = encode_answer(answer.status)
            if len(body) > left:
                self._listing.missing.append(Missing(f"answer of {answer.node}", "it is too large"))
                continue
            left -= len(body)
            kind = "a summary" if answer.is_summary else "whole"
            path = self._path("nodes/status-", answer.node, ".json")
            yield self._listing.file(path, body, f"the answer of {answer.node}, {kind}")

    def _logs(self) -> Iterator[ReportFile]:
        for one in self._material.logs:
            if not one.text:
                continue
            pod = self._scrubber.name(one.agent.pod, "pod")
            # Remove secrets before splitting the text into lines: a key may span several lines.
            lines = self._scrubber.secrets.remove(one.text).splitlines()
            text = "\n".join(map(self._scrubber.text, lines))
            path = self._path("logs/log-", pod, ".txt")
            yield self._listing.file(
                path, f"{text}\n".encode(errors="replace"), f"the last lines of {pod}"
            )

    def _objects(self) -> Iterator[ReportFile]:
        for one in self._material.objects:
            if not one.items:
                continue
            service = self._scrubber.text(one.service)
            items = [safe_object(item, self._scrubber) for item in one.items]
            path = self._path("services/", service.replace("/", "_"), ".json")
            yield self._listing.file(path, _json(items), f"objects of Service {service}")

    def _lists(self) -> Iterator[ReportFile]:
        listing, made_at = self._listing, self._material.made_at
        files = sorted(listing.files)
        manifest = {
            "made_at": made_at,
            "is_anonymous": self._scrubber.pseudonyms is not None,
            "files": [{"path": path, "bytes": size, "what": what} for path, size, what in files],
            "missing": [{"what": one.what, "why": one.why} for one in listing.missing],
            "never_contained": NEVER,
        }
        yield _readable("manifest.json", _json(manifest))
        yield _readable("README.txt", self._readme(files).encode(errors="replace"))

    def _readme(self, files: Sequence[tuple[str, int, str]]) -> str:
        names = (
            "Names and addresses are pseudonyms: the same one stands for the same name."
            if self._scrubber.pseudonyms is not None
            else "Names and addresses are real ones; --anonymous replaces them."
        )
        lines = [
            "A report of userspace-proxy about all nodes of a cluster.",
            names,
            f"Never contained: {', '.join(NEVER)}.",
            "",
            "Files:",
            *(f"  {path}: {what} ({size:,} bytes)" for path, size, what in files),
            "",
            "Missing:" if self._listing.missing else "Nothing is missing.",
            *(f"  {one.what}: {one.why}" for one in self._listing.missing),
        ]
        return "\n".join(lines) + "\n"

    def _path(self, start: str, name: str, end: str) -> str:
        """Return a unique path that all systems accept."""
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
        path, number = f"{start}{safe[:200]}{end}", 2
        while path.lower() in self._paths:
            path, number = f"{start}{safe[:200]}-{number}{end}", number + 1
        self._paths.add(path.lower())
        return path


NEVER = (
    "Secrets", "ConfigMaps", "credentials", "environment variables", "bytes of connections",
    "annotations and labels of others",
)  # fmt: skip
"""The kinds of data that a report never contains."""


def _in_new_order(all_nodes: AllNodes, *, has_new_names: bool) -> AllNodes:
    """Return nodes sorted by new names, if any: an order by hidden names would hint at these."""
    if not has_new_names:
        return all_nodes
    answers = sorted(all_nodes.answers, key=lambda one: one.node)
    return replace(all_nodes, answers=tuple(map(_answer_in_new_order, answers)))


def _answer_in_new_order(answer: AgentAnswer) -> AgentAnswer:
    if answer.status is None:
        return answer
    ports = [
        msgspec.structs.replace(port, endpoints=sorted(port.endpoints, key=lambda one: one.address))
        for port in answer.status.ports
    ]
    ports.sort(key=lambda one: (*one.names, one.family, one.side))
    ignored = sorted(answer.status.ignored, key=lambda one: (one.service, one.port))
    status = msgspec.structs.replace(answer.status, ports=ports, ignored=ignored)
    return replace(answer, status=status, behind=tuple(sorted(answer.behind)))


def _readable(path: str, body: bytes) -> ReportFile:
    """Return a file that is safe on a terminal: control characters are escaped as in JSON."""
    return ReportFile(path, printable_lines(body.decode(errors="replace")).encode())


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, default=str).encode() + b"\n"


def listed(missing: Iterable[Missing], most: int = 10) -> Iterator[str]:
    """Yield a line for each of the first ``most`` missing parts, and one for all others."""
    found = list(missing)
    for one in found[:most]:
        yield f"missing: {one.what}: {one.why}"
    if len(found) > most:
        yield f"missing: {plural(len(found) - most, 'other part')}, which README.txt in it lists"
