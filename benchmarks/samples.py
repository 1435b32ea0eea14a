"""Measured values by way, load and round; medians, and ratios and differences within a round."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from userspace_proxy.errors import InputError


@dataclass(frozen=True, slots=True)
class Sample:
    """One way under one load in one round."""

    load: str
    way: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    """Values by metric; see ``metrics.METRICS``."""
    note: str = ""
    """The reason if there are no values; otherwise empty."""


class Samples:
    """All samples of one run.

    Args:
        samples: Existing samples.
        machine: Facts for the report, by name.
    """

    def __init__(
        self, samples: Iterable[Sample] = (), machine: dict[str, str] | None = None
    ) -> None:
        self.all = list(samples)
        self.machine = machine or {}

    def add(self, sample: Sample) -> None:
        """Add a sample."""
        self.all.append(sample)

    def ways(self, load: str) -> list[str]:
        """Return the ways on which a load was put, in the order of the first round."""
        return list(dict.fromkeys(s.way for s in self.all if s.load == load))

    def loads(self) -> set[str]:
        """Return the loads that have samples."""
        return {sample.load for sample in self.all}

    def rounds(self, load: str) -> int:
        """Return the number of rounds of a load."""
        return len({s.round for s in self.all if s.load == load})

    def values(self, load: str, way: str, metric: str) -> dict[int, float]:
        """Return a metric's values by round, without rounds that lack a value."""
        return {
            s.round: s.values[metric]
            for s in self.all
            if (s.load, s.way) == (load, way) and metric in s.values
        }

    def median(self, load: str, way: str, metric: str) -> float | None:
        """Return the median over the rounds; None if there is no value."""
        values = self.values(load, way, metric)
        return median(values.values()) if values else None

    def ratio(self, load: str, metric: str, way: str, to: str) -> float | None:
        """Return the median of the ratios within each round; None if there is none."""
        ours, theirs = self.values(load, way, metric), self.values(load, to, metric)
        ratios = [ours[n] / theirs[n] for n in ours if theirs.get(n)]
        return median(ratios) if ratios else None

    def added(self, load: str, metric: str, way: str, over: str) -> float | None:
        """Return the median of the differences within each round; None if there is none."""
        ours, theirs = self.values(load, way, metric), self.values(load, over, metric)
        differences = [ours[n] - theirs[n] for n in ours if n in theirs]
        return median(differences) if differences else None

    def spread(self, load: str, way: str, metric: str) -> float | None:
        """Return the range of the values as a fraction of the median; None if there is no value."""
        values = self.values(load, way, metric).values()
        return (max(values) - min(values)) / median(values) if values else None

    def note(self, load: str, way: str) -> str:
        """Return why the first round without values has none; empty if all rounds have values."""
        return next((s.note for s in self.all if (s.load, s.way) == (load, way) and s.note), "")

    def save(self, path: Path) -> None:
        """Write all samples as JSON."""
        document = {"machine": self.machine, "samples": [asdict(s) for s in self.all]}
        path.write_text(json.dumps(document, indent=1))


def load_samples(path: Path) -> Samples:
    """Read a file that :meth:`Samples.save` wrote.

    Raises:
        InputError: There is no such file, or it isn't such a file.
    """
    try:
        document = json.loads(path.read_text())
        return Samples((Sample(**sample) for sample in document["samples"]), document["machine"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it contains no samples"
        raise InputError(f"cannot render {path}: {why}", hint="give a file of --raw") from exc
