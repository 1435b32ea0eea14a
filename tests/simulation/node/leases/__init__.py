"""Proxies of several nodes that share Leases at one API server, and put workloads to rest.

plan ──▶ world ──▶ nodes: source, Service ports, scaling ──▶ Leases, scales ──▶ workloads ──▶ pods
           │          └── workers ◀── clients                                      slices ◀──┘
           └──▶ checks: from objects and clients, by a reading of JSON of their own
"""
