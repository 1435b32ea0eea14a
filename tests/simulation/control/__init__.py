"""Simulates the control half: control processes, workers, the sockets that they pass, and deaths.

    plan ──▶ world ──▶ machine: processes, each with a loop and a table of descriptors
                       ├─ control process: Plane, Predecessors, Relief   (the product's)
                       ├─ workers: WorkerMain, Worker, DataPlane         (the product's)
                       └─ files: ports, ends of Unix sockets, rendezvous (simulated)
             ──▶ oracles of clients: queues, checks, waits, calm, pins
                 oracles of processes: replacements, ejections, counting, resting, agreement,
                 reporting, disturbances, notices
                 what they ask: in_force, breaks, holders

One thread, one virtual clock, and a seed that decides everything: see docs/adr/0072.
"""
