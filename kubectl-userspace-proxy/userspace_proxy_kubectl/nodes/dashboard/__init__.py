"""The dashboard: the status page for all nodes, on the loopback of the user's machine.

    AllNodes ──▶ Merged ──▶ pages, and the map ──▶ the browser that the command opened

Rule 1: as on a proxy's page: the server renders all markup, no request changes anything, and the
size of a page is bounded, whatever the size of the cluster.
Rule 2: only a browser that used the printed address gets answers.
"""
