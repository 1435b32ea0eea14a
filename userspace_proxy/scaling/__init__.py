"""Scales workloads of Services that request it: from zero while clients wait, and back to zero.

Service ports ──▶ usage: demand ──┬──▶ waking: 0 → 1
                                  └──▶ node_lease, holder_lease: 1 → 0, once all nodes agree
                                       ──▶ cordons: no client meanwhile
"""
