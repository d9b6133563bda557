"""Binds losses to knowledge: weighted terms, their counts and their sum."""
