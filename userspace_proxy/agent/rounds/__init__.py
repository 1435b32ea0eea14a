"""Performs the steps of a sync round: plan, diff, listeners, steering, and paths by probes.

    snapshot ──▶ SyncLoop ─┬▶ Planning ──▶ ServedPorts ──▶ plane
                    ▲      │                 │ ▲   └─ node ports, shares of listeners
                    │      │                 ▼ └───── paths ◀─ probes
                    │      └▶ Rules ◀─ what differs ──▶ steering
                    └── NodeFacts, Options

This package doesn't depend on the watchers and the status, which depend on it.
"""
