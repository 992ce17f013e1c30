"""Benchmarks of sc_lmm: its own targets, its peers, and how time grows. Start with ``python tests/benchmarks/run.py``."""
