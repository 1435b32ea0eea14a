"""The tests: unit, node, cluster, page and faults; CONTRIBUTING says what belongs where."""
