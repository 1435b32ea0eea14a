"""Services from an API server, here the published fake."""
