"""Reports connections of programs on this node that connect() hooks have translated."""
