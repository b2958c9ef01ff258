"""Check the claims of the DR loss paper: train, sweep, evaluate, and compare with the published tables."""

__version__ = "0.1.0"
