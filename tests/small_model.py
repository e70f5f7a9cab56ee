"""An untrained classifier of digits, small enough for any test."""

from robustloss.models.build import build_classifier
from robustloss.seeding import using_seed


def new_model(digits, loss="lgm", *, feature_dim=8, seed=0, **params):
    """Builds it; params are the loss's."""
    build = {
        "loss": loss,
        "loss_params": params,
        "backbone": "digits_cnn",
        "backbone_params": {},
        "feature_dim": feature_dim,
        "num_classes": 10,
        "image_shape": digits.image_shape,
        "mean": digits.mean,
        "std": digits.std,
    }
    with using_seed("weights", seed):
        return build_classifier(build)
