"""Health, metrics, and the status page: they show a proxy's state and never change it.

``view`` holds the values that the agent fills in; they come without aiohttp, which
costs half a second to import: take ``StatusServer`` from ``.server`` when it is used.
"""
