"""Serves the dashboard: the status page for all nodes, on the loopback of a user's machine.

    AllNodes ──▶ Merged ──▶ pages, and the map ──▶ the browser that the command opened

Rule 1: as for a proxy's page, the server renders all markup, no request changes anything, and the
size of a page is bounded, regardless of the size of the cluster.
Rule 2: only a browser that has opened the printed URL gets answers.
"""
