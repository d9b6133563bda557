"""Quality, fidelity, calibration and statistics: Evaluation, Verdict, and the examples that the report shows."""
