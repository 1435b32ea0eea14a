"""One source of a node on simulated API servers: what it publishes, asks for, and says of itself.

plan ──▶ world ──▶ writes, faults ──▶ servers ──▶ KubernetesSource ──▶ snapshots, status
                      └──▶ checks: against the log of writes, by a reading of JSON of their own
"""
