"""Formulas on arrays: rates, intervals, tests, calibration, the shape of the feature space.

Everything here is NumPy and SciPy on plain arrays: nothing of ours is imported. `analysis`,
`evaluation` and `reports` import this. Begin with `rates`, then `intervals` and `auroc_interval`
for what the finite number of images leaves open, `bootstrap` and `paired_tests` for two losses
side by side.
"""

from robustloss.metrics.rates import auroc

__all__ = ["auroc"]
