"""The tests: unit, node, cluster, page and faults; CONTRIBUTING states what belongs where."""
