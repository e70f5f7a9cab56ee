"""Is the attack noticed? Scores, ROC curves, adaptive attacks, controls."""
