"""Writes one archive about all nodes, for an incident or a bug report.

    AllNodes, logs, objects ──▶ secrets removed ──▶ names, addresses replaced ──▶ files ──▶ tar.gz

Rule 1: the fields that an archive contains are listed one by one; other fields aren't included.
Rule 2: secrets are removed from all texts that this program didn't write, and with ``--anonymous``
names are replaced. Derived files, such as the nodes table, are made from the result.
Rule 3: unavailable and truncated parts are listed in the archive with the reason.
"""
