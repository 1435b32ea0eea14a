"""Services from files."""
