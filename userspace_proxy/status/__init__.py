"""Health, metrics, and the status page: they show a proxy's state and never change it.

``view`` contains the values that the agent fills in, without aiohttp, which
takes half a second to import: import ``StatusServer`` from ``.server`` where it is used.
"""
