"""Upstream's own tests against a cluster of ours, and the report that is written from them.

cluster ── ginkgo, e2e.test ──▶ junit.xml ──▶ one column of docs/conformance.md
"""
