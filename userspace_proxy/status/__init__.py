"""Health, metrics, and the page: what is shown of a proxy, never what it does.

``view`` holds the values that the agent fills in; they come without aiohttp, which
costs half a second to import: take ``StatusServer`` from ``.server`` when it is used.
"""
