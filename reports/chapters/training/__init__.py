"""How did the training go? Learning curves, times, searches."""
