"""What is read from ginkgo's report."""

from __future__ import annotations

from pathlib import Path

from .junit import FAILED, PASSED, SKIPPED, Result, read_results

REPORT = """\
<testsuites><testsuite name="Kubernetes e2e suite">
<testcase name="[It] [sig-network] Services should serve [Conformance]" time="7.5"/>
<testcase name="[It] [sig-network] Services should refuse" time="121">
  <failure message="connection&#10; accepted" type="failed">stack</failure></testcase>
<testcase name="[It] [sig-network] DNS [Provider:GCE]" time="1">
  <skipped message="skipped - Only supported for gce"/></testcase>
<testcase name="[It] [sig-network] Services not chosen"><skipped message="skipped"/></testcase>
<testcase name="[It] [sig-node] Pods"/>
<testcase name="[SynchronizedBeforeSuite]"/>
</testsuite></testsuites>
"""


def test_chosen_tests_of_the_network_are_read_by_name(tmp_path: Path) -> None:
    report = tmp_path / "junit.xml"
    report.write_text(REPORT)
    assert read_results(report) == [
        Result("[sig-network] DNS [Provider:GCE]", SKIPPED, 1, "Only supported for gce"),
        Result("[sig-network] Services should refuse", FAILED, 121, "connection accepted"),
        Result("[sig-network] Services should serve [Conformance]", PASSED, 7.5, ""),
    ]
