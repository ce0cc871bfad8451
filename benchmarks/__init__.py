"""Benchmarks: what is run for the tables, and what comes of it."""
