"""All nodes of a cluster in one view: reads each agent through the API server, and merges.

    pods of the release ──port-forward──▶ answers of agents ──▶ AllNodes ──▶ table, verdicts, matrix

Nothing else runs or listens in the cluster: the user's own rights lead to each agent's loopback.
"""
