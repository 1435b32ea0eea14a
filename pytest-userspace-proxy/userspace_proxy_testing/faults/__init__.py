"""Fault injection for tests: toxiproxy's toxics, and faults that a toxic can't express.

    Service ─▶ endpoint with a fault ─▶ FaultServer (loopback) ──toxics──▶ the endpoint itself

A fault replaces an endpoint with a server in this process that forwards connections and applies the
fault. So the data plane knows nothing of faults, and they cost nothing where there are none.

Source: toxiproxy's README for names, attributes and their meaning.
"""
