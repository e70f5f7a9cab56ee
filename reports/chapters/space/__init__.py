"""What does the feature space look like? Embeddings, distances, boundaries, norms.

Begin with `tables`, then `embedding`, the paper's Figure 1. `boundary`, with its Figure 2, needs
centers; `likelihood_map` needs features in two dimensions.
"""
