"""Loop, optimiser, schedule, checkpoint, resume. Knows an objective, not which."""
