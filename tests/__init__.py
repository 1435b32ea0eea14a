"""All tests; CONTRIBUTING states which folder contains which kind of test."""
