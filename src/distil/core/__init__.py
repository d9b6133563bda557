"""Errors, configuration base, run directory, events (no torch); seeds, placement. Imports nothing of ours."""
