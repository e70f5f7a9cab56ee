"""From a model with random weights to a trained one."""
