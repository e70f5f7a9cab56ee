"""Images as uint8 tensors, from where they lie to the sets that a run uses."""
