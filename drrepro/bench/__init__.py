"""Measurements that the documentation quotes, each against a named peer in the same process."""
