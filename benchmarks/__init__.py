"""Timings against the libraries that users come from: `python -m benchmarks` or `make bench`; see `harness`."""
