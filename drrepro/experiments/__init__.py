"""Runs, their records, and sweeps of them."""
