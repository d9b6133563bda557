"""Load, describe, tap and shrink networks."""
