"""Why a run cannot be done as it was asked for."""


class RunError(ValueError):
    """A device, executor, folder or seeds that cannot be; the text names the remedy."""
