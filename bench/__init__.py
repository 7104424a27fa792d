"""Benchmarks against peers and against the servers' own limit."""
