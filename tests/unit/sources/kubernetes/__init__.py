"""Services from an API server, which is the published fake here."""
