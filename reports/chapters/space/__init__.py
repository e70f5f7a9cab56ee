"""What does the feature space look like? Embeddings, distances, boundaries, norms."""
