"""One (loss, seed), computed into its folder."""
