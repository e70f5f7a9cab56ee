"""Is the attack noticed? Scores, ROC curves, attacks that know the detector, controls.

Begin with `table`, the numbers of one attack, and `curves`. `adaptive` sets naive attacks beside
those that know the detector.
"""
