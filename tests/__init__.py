"""The tests: unit, node, cluster, page and faults; CONTRIBUTING explains what belongs where."""
