"""Serves health, metrics and the status page, which show a proxy's state and never change it.

Import ``StatusServer`` from ``.server`` where it is used: it needs aiohttp, which takes half a
second to import.
"""
