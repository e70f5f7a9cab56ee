"""What do attacked images look like? Begin with `attacked`."""
