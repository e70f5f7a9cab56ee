"""What does the feature space look like? Embeddings, distances, boundaries, norms.

Begin with `tables`, then `embedding`, the paper's Figure 1. `boundary`, `likelihood_map` and
`alpha` need features in two dimensions or a Gaussian-mixture loss.
"""
