"""Where Services come from: files, memory, and the API server's fake."""
