"""Performs the steps of a sync round: plan, diff, listeners, steering, and paths by probes.

    snapshot ──▶ SyncLoop ─┬▶ Planning ──▶ ServedPorts ──▶ plane
                    ▲      │                 │ ▲   └─ node ports, shares of listeners
                    │      │                 ▼ └───── paths ◀─ probes
                    │      └▶ Rules ◀─ what differs ──▶ steering
                    └── NodeFacts, Options

This package depends neither on the watchers nor on the status, which depend on it.
"""
