"""What does a fooled network say? Confidence, calibration, confusion."""
