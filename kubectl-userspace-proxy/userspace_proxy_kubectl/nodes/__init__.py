"""All nodes of a cluster in one view: reads agents through the API server, merges answers.

    pods of the release ──port-forward──▶ answers of agents ──▶ AllNodes ──▶ table, verdicts, matrix

No further component runs in the cluster: the user's own rights reach each agent's loopback.
"""
