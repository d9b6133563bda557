"""What teachers say: logits of one or many teachers, live or kept. All teachers are frozen here and nowhere else."""
