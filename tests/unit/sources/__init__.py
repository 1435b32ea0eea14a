"""The sources of Services: files, memory, and an API server, which is a fake."""
