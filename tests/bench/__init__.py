"""Benchmarks: each prints the ratio of paired runs in one session, never bare seconds alone."""
