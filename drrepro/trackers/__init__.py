"""Experiment trackers, each a sink of the training loop: imported only when a run asks for it."""
