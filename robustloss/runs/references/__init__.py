"""Reference rows: losses that others trained and attacked, beside those of a run.

A reference is one or several files of the format of `robustloss baseline` (`results.compact`),
which hold of every loss and seed what each attack did to each test image, with the numbers of
results.json. Those that ship lie in `robustloss/reference/NAME/LOSS.npz`, a file for each loss. Any
such file, or folder of them, can be named in place of NAME.

`find` opens a reference: one `Baseline`, whose labels say that and of which version the rows are,
such as "Softmax (reference, 0.1.0)". `match` refuses a run whose data, network, training or attacks
are others. Then the rows are merged into a folder like those of a further run (`runs.merge`), which
keeps the reference as reference.npz. The reference has no cells there, so pictures, curves of
scores and whatever else needs single records show the losses of the run alone. Tests compare
outcomes image by image and do not see where these come from (`analysis.subjects`). A reference
keeps no posteriors, so calibration error and Brier score are shown and not tested.

`start` gives the spec to begin with; `add` splits a baseline file, or a run, into the files of a
reference, after checking it.
"""
