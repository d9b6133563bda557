"""The story of a run (``run.py``), and how each of its stages is put together from the rooms below."""
