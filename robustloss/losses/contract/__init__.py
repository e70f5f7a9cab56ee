"""The shipped contract checks of a loss, as `robustloss check-loss` runs them."""
