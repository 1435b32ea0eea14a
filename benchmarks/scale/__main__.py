"""``python -m benchmarks.scale``: measures, prints, and writes docs/benchmarks-scale.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.cluster.build import BuildError, ensure_binaries
from tests.cluster.child import ControlPlaneError
from tests.cluster.waiting import DeadlineExceededError
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy_testing.sandbox import Sandbox

from ..__main__ import CALM, keys_of
from ..machine import describe_machine
from ..metrics import NotMeasured
from ..runner import raise_descriptor_limit
from ..samples import Sample, Samples, load_samples
from ..tools import Tools, build_tools
from .agents import Agent
from .floors import load_times, rules_of
from .objects import make_specs, probe_specs
from .report import METRICS, goals, page_of, verdicts_of
from .rows import ROWS, Scene
from .sources import Cluster, write_manifests
from .stage import Stage
from .ways import WAYS, Way

PAGE = Path("docs/benchmarks-scale.md")
SERVICES, FEW = 10_000, 10
ROOM = 50
"""The number of Services that are added only to measure changes; descriptors allow no more."""
PROBES = 500
CHURN_S = 60.0


def main() -> int:
    """Run the benchmarks; return the exit status."""
    options = _parse(sys.argv[1:])
    # On SIGTERM, exit normally, so that the namespaces are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        samples = load_samples(options.render) if options.render else _run(options)
    except (UserspaceProxyError, BuildError, ControlPlaneError, DeadlineExceededError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 1
    if options.raw:
        samples.save(options.raw)
    page = page_of(samples)
    if options.output:
        options.output.write_text(page)
        print(f"wrote {options.output}")
    else:
        print(page.partition("## Start")[2])
    verdicts = verdicts_of(samples)
    print(goals(verdicts))
    print(f"{sum(one.is_met is True for one in verdicts)} of {len(verdicts)} goals are met")
    return 0


def _run(options: argparse.Namespace) -> Samples:
    began = time.monotonic()
    tools = build_tools()
    raise_descriptor_limit()
    is_busy = os.getloadavg()[0] > CALM
    if is_busy:
        print("the machine is busy with other work: these figures will not be worth much")
    samples = Samples(machine=describe_machine(tools))
    with _Run(options, tools, samples) as run:
        for key in options.ways:
            run.measure(WAYS[key])
    took = time.monotonic() - began
    samples.machine["Services"] = f"{options.services:,}, with {3 * options.services:,} endpoints"
    samples.machine["scope"] = (
        f"{', '.join(options.ways)}; {options.changes} changes of each kind, "
        f"{options.seconds:g} s of churn; "
        + ("others were at work when it began" if is_busy else "the machine was calm at first")
    )
    samples.machine["run"] = f"{took / 60:.0f} minutes"
    print(f"measured for {took:.0f} s")
    return samples


class _Run:
    """One run, with the objects that all agents share.

    Args:
        options: The options of the command line.
        tools: The programs of this repository.
        samples: Receives all samples.
    """

    def __init__(self, options: argparse.Namespace, tools: Tools, samples: Samples) -> None:
        self._options, self._tools, self._samples = options, tools, samples
        self._specs = make_specs(options.services - ROOM)
        self._few = make_specs(FEW)
        self._probes = iter(probe_specs(PROBES, options.services))
        self._stack = contextlib.ExitStack()
        self._cluster: Cluster | None = None

    def __enter__(self) -> _Run:
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-"))
        )
        self._folder.chmod(0o755)
        self._sandbox = self._stack.enter_context(Sandbox())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, way: Way) -> None:
        """Measure the selected rows of one agent and record failures; stop after a failed start."""
        rows = [row for row in way.rows if row in self._options.only]
        if not rows:
            return
        folder = self._folder / way.key
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            try:
                scene = self._set(way, folder, stack, with_few="connection" in rows)
            except (UserspaceProxyError, OSError, AssertionError, RuntimeError) as exc:
                for row in rows:
                    self._add(row, way, [], f"failed: {exc}")
                return
            # If the start fails, nothing else can be measured.
            for row in ["start", *(row for row in rows if row != "start")]:
                if not self._measure_row(row, way, scene) and row == "start":
                    return
            if "floor" in self._options.only and way.key in ("api-nftables", "api-iptables"):
                self._measure_floor(way, scene)

    def _set(self, way: Way, folder: Path, stack: contextlib.ExitStack, *, with_few: bool) -> Scene:
        manifests = folder / "manifests"
        writer, specs, probes = None, self._specs, self._probes
        if way.has_ranges:
            specs = [replace(spec, has_range=True) for spec in specs]
            probes = (replace(spec, has_range=True) for spec in probes)
        if way.form:
            write_manifests(manifests, specs, form=way.form)
            source = [f"--manifests={manifests}"]
        else:
            cluster = self._open_cluster()
            writer = cluster.writer
            source = [f"--kubeconfig={cluster.kubeconfig}"]
        agent = self._agent(way, way.key, folder, source, stack)
        few = None
        if with_few:
            place = folder / "few"
            place.mkdir()
            write_manifests(place / "manifests", self._few, form="json")
            flags = [f"--manifests={place / 'manifests'}"]
            few = self._agent(way, f"few-{way.steering}", place, flags, stack)
            few.start()
            few.stage.prober.do("wait_for_all", ips=[self._few[0].ip], seconds=30.0)
        return Scene(
            agent,
            specs,
            probes,
            writer,
            manifests,
            few,
            self._few,
            seconds=self._options.seconds,
            changes=self._options.changes,
        )

    def _agent(
        self,
        way: Way,
        name: str,
        folder: Path,
        source: Sequence[str],
        stack: contextlib.ExitStack,
    ) -> Agent:
        # Stages are kept until the end, because a sandbox's nodes are connected.
        stage = Stage(self._sandbox, name, self._tools.goload)
        self._stack.callback(stage.prober.close)
        agent = Agent(stage, folder, way.steering, source)
        stack.callback(agent.stop)
        return agent

    def _open_cluster(self) -> Cluster:
        if self._cluster is None:
            binaries = ensure_binaries(lambda text: print(text, end="", flush=True))
            folder = self._folder / "cluster"
            folder.mkdir()
            node = self._sandbox.add_node("control")
            self._cluster = Cluster(binaries, node, self._specs, folder)
            self._stack.callback(self._cluster.close)
        return self._cluster

    def _measure_row(self, row: str, way: Way, scene: Scene) -> bool:
        """Measure one row; return whether there is at least one sample."""
        values: list[dict[str, float]] = []
        note = ""
        try:
            values.extend(ROWS[row](scene))
        except NotMeasured as exc:
            note = str(exc)
        except (UserspaceProxyError, OSError, ValueError, LookupError) as exc:
            note = f"failed: {exc}"
        if scene.agent.pid and not scene.agent.is_alive:
            note = f"it died: {scene.agent.last_log_line()}"
        self._add(row, way, values, note)
        return bool(values)

    def _measure_floor(self, way: Way, scene: Scene) -> None:
        try:
            text = rules_of(scene.stage.node, way.steering)
            took = load_times(self._sandbox, way.steering, text, self._folder)
            self._add("floor", way, [{"floor_s": seconds} for seconds in took], "")
        except (UserspaceProxyError, OSError) as exc:
            self._add("floor", way, [], f"failed: {exc}")

    def _add(self, row: str, way: Way, values: list[dict[str, float]], note: str) -> None:
        for number, each in enumerate(values):
            self._samples.add(Sample(row, way.key, number, each))
        if note:
            self._samples.add(Sample(row, way.key, len(values), {}, note))
        medians = {
            name: self._samples.median(row, way.key, name) for each in values for name in each
        }
        said = "  ".join(
            f"{METRICS[n].head} {v:,.{METRICS[n].digits}f}"
            for n, v in medians.items()
            if v is not None
        )
        print(f"{way.key:14} {row:11} {said}  {note}", flush=True)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    rows = [*ROWS, "floor"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--services", type=int, default=SERVICES, help=f"default {SERVICES:,}")
    parser.add_argument("--changes", type=int, default=20, help="of each kind (default 20)")
    parser.add_argument("--seconds", type=float, default=CHURN_S, help="of churn (default 60)")
    parser.add_argument("--only", type=keys_of(rows), default=rows, help=",".join(rows))
    parser.add_argument("--ways", type=keys_of(WAYS), default=list(WAYS), help=",".join(WAYS))
    parser.add_argument("--output", type=Path, help=f"the page to write (default {PAGE})")
    parser.add_argument("--raw", type=Path, help="write all samples as JSON, for --render")
    parser.add_argument("--render", type=Path, help="measure nothing, write the page of a --raw")
    options = parser.parse_args(words)
    is_whole = options.only == rows and options.ways == list(WAYS)
    if options.output is None and is_whole and options.services == SERVICES:
        options.output = PAGE
    return options


if __name__ == "__main__":
    sys.exit(main())
