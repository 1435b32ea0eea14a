"""The first slice of the third half: one steering by nftables on a simulated kernel.

plan ── apply, change, repair, restart ──▶ NftablesSteering ──▶ simulated kernel ◀── clients
     ── drift, refusals, links ────────────────────────────────▶     │
                                                   oracles ◀── verdicts, entries, tables
"""
