"""Verbs only: parses, calls, prints. Imports no torch at start-up."""
