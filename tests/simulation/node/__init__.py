"""Simulates a whole node: agents and their workers, from the API server to the clients.

    plan ──▶ world ──▶ objects at the API server ──▶ an agent: its source, rounds, steering, plane
                       clients ──▶ the kernel's rules ──▶ a port ──▶ a worker ──▶ an endpoint
                                          └─────────────────────────────────────▶ an endpoint
             ──▶ invariants: the view of clients, readers and other programs, against ``truth``

``truth`` reads the objects, and shares no code with the product. The processes, netlink and
nf_tables are those of ``tests.simulation.machine``: see docs/adr/0099.
"""
