"""One archive about all nodes, for an incident or a bug report.

    AllNodes, logs, objects ──▶ secrets removed ──▶ names, addresses replaced ──▶ files ──▶ tar.gz

Rule 1: an archive's contents are chosen field by field; other fields aren't included.
Rule 2: everything that others wrote first passes the removal of secrets, and with ``--anonymous``
the pseudonyms. What is derived, such as the nodes table, is made from the result.
Rule 3: whatever is unavailable or truncated is listed in the archive with the reason.
"""
