"""Simulates the data plane: one thread, a virtual clock, simulated sockets, all decided by a seed.

    seed ──▶ Plan ──▶ World ─┬─ Timeline: the clock, and all future events
             (plan)  (world) ├─ VirtualLoop: asyncio's part of an event loop      (timeline)
                             ├─ Kernel, Network: sockets, epoll, pipes, delays    (kernel, network)
                             ├─ the data plane itself, which calls them           (seam)
                             ├─ clients and endpoints                             (actors)
                             ├─ the record of each of their connections         (clients, flows)
                             └─ guarantees, checked during the run and at its end (promises)

Rule 1: nothing here reads a clock, draws from an unseeded source or iterates over a set of objects,
so a seed gives the same run on any machine (``PYTHONHASHSEED=0``).
Rule 2: the data plane is unchanged: names of modules that it refers to are replaced (``seam``).
Rule 3: the simulated kernel behaves as Linux does where the data plane relies on it: the same tests
run against both (``test_kernel_contract``).

``make simulate SEEDS=1000`` runs seeds, ``make simulate SEED=7`` one, and prints its trace.
"""
