"""Injects faults for tests: toxiproxy's toxics, and faults that a toxic can't express.

    Service ─▶ endpoint with a fault ─▶ FaultServer (loopback) ──toxics──▶ the endpoint itself

A fault replaces an endpoint with a server in this process that forwards connections and applies the
fault. The data plane therefore has no code for faults, and endpoints without faults cost nothing.

Source: toxiproxy's README for names, attributes and their meaning.
"""
