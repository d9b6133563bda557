"""A run directory becomes one HTML file and a model card. Reads files only: imports no stage and no torch."""
