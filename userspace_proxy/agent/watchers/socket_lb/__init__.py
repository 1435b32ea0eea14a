"""Reports connections of this node's programs that connect() hooks have translated."""
