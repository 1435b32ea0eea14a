"""Lookups of Services' names: by this process, by aiohttp, and by other programs through DNS."""
