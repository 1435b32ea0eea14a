"""The dashboard: the status page for all nodes, on loopback of its user's machine.

    AllNodes ──▶ Merged ──▶ pages, and the map ──▶ the browser that the command has opened

Rule 1: as on a proxy's page: the server renders all markup, no request changes anything, and a page
is bounded in size, whatever the cluster's.
Rule 2: only browsers that came by the address that the command has printed are answered.
"""
