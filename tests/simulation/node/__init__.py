"""Simulates a whole node: an agent and its workers, from the API server to what clients get.

    plan ──▶ world ──▶ objects at the API server ──▶ the agent's process: Agent, its rounds, Plane
                       clients ──▶ the kernel's table ──▶ a port ──▶ a worker ──▶ an endpoint
             ──▶ checks: each end that a client sees, against ``truth``, which reads the objects

The agent's process and its workers are those of ``tests.simulation.control``, with the product's
own code: see docs/adr/0100.
"""
