"""Faults on demand, for tests: toxiproxy's toxics, and what a toxic can't do.

    Service ─▶ endpoint with a fault ─▶ FaultServer (loopback) ──toxics──▶ the endpoint itself

A fault replaces an endpoint by a server of this process that passes connections on and does to them
what was asked for. So the data plane knows nothing of faults, and they cost nothing where there are
none.

Source: toxiproxy's README for names, attributes and their meaning.
"""
