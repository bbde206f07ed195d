"""Benchmarks: each prints the ratio of paired runs in one process, never bare seconds alone."""
