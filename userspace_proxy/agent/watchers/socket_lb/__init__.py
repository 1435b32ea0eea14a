"""Reports connections of this node's programs that hooks at connect() have translated."""
