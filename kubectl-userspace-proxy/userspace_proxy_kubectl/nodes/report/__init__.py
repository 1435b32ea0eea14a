"""One archive about all nodes, for an incident or a bug report.

    AllNodes, logs, objects ──▶ secrets removed ──▶ names, addresses replaced ──▶ files ──▶ tar.gz

Rule 1: what an archive contains is chosen field by field; what isn't chosen isn't in it.
Rule 2: all that others wrote passes the removal of secrets before anything is made of it, and with
``--anonymous`` the pseudonyms. What is derived, such as the nodes table, is made of the result.
Rule 3: whatever can't be had, or is cut, is listed in the archive with the reason.
"""
