"""Resolves Service names in this process, for aiohttp, and for other programs through DNS."""
