"""Tests of the status page in a real Chromium: its contents, and errors on the console."""
