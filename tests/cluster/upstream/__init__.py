"""Runs upstream's own tests on a cluster of this repository, and writes a report.

cluster ── ginkgo, e2e.test ──▶ junit.xml ──▶ one column of docs/conformance.md
"""
