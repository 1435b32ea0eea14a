"""Puts every load on every way, round by round."""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox import Sandbox

from .loads import Load
from .metrics import METRICS, NotMeasured, Values
from .samples import Sample, Samples
from .seen import check_client_address
from .sites import Site
from .tools import Tools
from .way import Way
from .ways import WAYS

# The kernel keeps the source port of a connection for this long if this side closed it first.
# Source: TCP_TIMEWAIT_LEN in include/net/tcp.h.
TIME_WAIT_S = 60.0


def raise_descriptor_limit() -> None:
    """Raise the limit of descriptors for this process and its children to the maximum."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def open_ways(keys: Sequence[str], tools: Tools) -> Iterator[list[Way]]:
    """Start and yield all ways, each in its own site; stop them at the end of the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        sandbox = stack.enter_context(Sandbox())
        ways = []
        for key in keys:
            print(f"starting {key} … ", end="", flush=True)
            began = time.monotonic()
            place = folder / key
            place.mkdir()
            way = WAYS[key](Site(sandbox, key, tools.goload), tools, place)
            stack.callback(way.stop)
            way.open()
            way.start()
            check_client_address(way)
            ways.append(way)
            print(f"{time.monotonic() - began:.1f} s", flush=True)
        yield ways


def run_rounds(
    ways: Sequence[Way], loads: Sequence[Load], samples: Samples, *, rounds: int, seconds: float
) -> None:
    """Measure all loads on all ways, and add the results to the samples.

    Within a round, a load is put on one way after the other, so that changes in the machine's speed
    affect all ways equally. Each round begins with another way.
    """
    ports_are_back = 0.0
    for number in range(rounds):
        turn = number % len(ways)
        for load in loads:
            if load.rounds_at_most is not None and number >= load.rounds_at_most:
                continue
            load.prepare(samples)
            if load.uses_ports_up:
                time.sleep(max(0.0, ports_are_back - time.monotonic()))  # noqa: TID251 - no event reports the end
            for way in [*ways[turn:], *ways[:turn]]:
                if load.suits(way):
                    sample = _measure(load, way, number, seconds)
                    samples.add(sample)
                    print(_line(sample, rounds), flush=True)
            if load.uses_ports_up:
                ports_are_back = time.monotonic() + TIME_WAIT_S


def _measure(load: Load, way: Way, number: int, seconds: float) -> Sample:
    """Return one sample, whose note is the failure, if any; restart a way that has exited."""
    values: Values = {}
    note = ""
    try:
        values = load.run(way, seconds)
    except NotMeasured as exc:
        note = str(exc)
    except (SandboxError, OSError) as exc:
        note = f"failed: {exc}"
    if way.has_died:
        values, note = {}, f"it died: {way.last_log_line()}"
        way.restart()
    return Sample(load.key, way.key, number, values, note)


def _line(sample: Sample, rounds: int) -> str:
    said = sample.note or "  ".join(
        f"{METRICS[name].head} {value:,.{METRICS[name].digits}f}"
        for name, value in sample.values.items()
    )
    return f"{sample.round + 1}/{rounds} {sample.load:9} {sample.way:14} {said}"
