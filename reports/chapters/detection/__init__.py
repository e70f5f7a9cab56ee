"""Is the attack noticed? Scores, ROC curves, attacks that know the detector, controls.

Begin with `table`, the numbers of one attack, and `roc`, the paper's Figure 4. `detected` looks up
the rows of the table `detection` for all files here; `adaptive` and `fall` set naive attacks beside
those that know the detector.
"""
