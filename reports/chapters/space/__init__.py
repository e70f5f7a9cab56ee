"""What does the feature space look like? Embeddings, distances, boundaries, norms.

Begin with `tables`, then `embedding`, the paper's Figure 1. `alpha`, its Figure 2, needs a
Gaussian-mixture loss; `boundary` and `likelihood_map` need features in two dimensions.
"""
