"""What does a fooled network say? Confidence, calibration, classes, confusion.

Begin with `posterior`, the paper's Figure 3, then `calibration` and `reliability`: can a stated
confidence be believed?
"""
