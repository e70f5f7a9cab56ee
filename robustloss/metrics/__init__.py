"""Formulas on arrays: rates, intervals, tests, calibration, the shape of the feature space."""

from robustloss.metrics.rates import auroc

__all__ = ["auroc"]
