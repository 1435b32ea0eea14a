"""What a round does: plan, difference, listeners, steering, and the paths that probes choose.

    snapshot ──▶ SyncLoop ─┬▶ Planning ──▶ ServedPorts ──▶ plane
                    ▲      │                 │ ▲   └─ node ports, shares of listeners
                    │      │                 ▼ └───── paths ◀─ probes
                    │      └▶ Rules ◀─ what differs ──▶ steering
                    └── NodeFacts, Options

Nothing here knows who looks on: the watchers and the status read it.
"""
