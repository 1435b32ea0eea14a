"""Mirror of userspace_proxy/status; the servers run on 127.0.0.1 and any free port."""
