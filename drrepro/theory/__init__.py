"""Checks of what the paper derives."""
