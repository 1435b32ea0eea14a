"""The status page in a real Chromium: what people see, and what the console says."""
