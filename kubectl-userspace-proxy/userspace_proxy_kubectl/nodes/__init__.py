"""Shows all nodes of a cluster in one view: reads their agents, and merges the answers.

    pods of the release ──port-forward──▶ answers of agents ──▶ AllNodes ──▶ table, verdicts, matrix

No other component runs in the cluster: port-forwards, with the user's rights, reach the agents.
"""
