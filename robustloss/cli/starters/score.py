"""A detection score of your own: a function of what a model says of images."""

import numpy as np
from torch import Tensor

from robustloss.evaluation.torch_scores import Outputs
from robustloss.results.records import Record


# A second parameter, `reference`, would be given arrays of clean images to fit on, by name:
# train_features (M,D), train_labels (M,), validation_logits (V,K) and others.
def my_score(record: Record) -> np.ndarray:
    """Return (N,) numbers, higher for images that look clean: the lead of the largest logit.

    Args:
        record: One pass of N images: logits (N,K), class_log_likelihood (N,K), features (N,D),
            predictions (N,).
    """
    ordered = np.sort(record.logits, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def my_score_torch(outputs: Outputs) -> Tensor:
    """Return the same score in torch, so that adaptive attacks can try to deceive it.

    Args:
        outputs: Of B images, with the fields of a Record; gradients flow through them.
    """
    ordered = outputs.logits.sort(dim=1).values
    return ordered[:, -1] - ordered[:, -2]
