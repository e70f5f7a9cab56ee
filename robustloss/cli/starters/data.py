"""A data set of your own: a function that returns training and test images with their labels."""

from typing import Any

import numpy as np
from sklearn.datasets import load_digits


# Parameters stand here, each with a default: a spec gives them as params under [data]. One that is
# called root gets the data folder.
def my_data(test_images: int = 500) -> dict[str, Any]:
    """Return the sets: each a pair (images, labels), or a torch Dataset of such pairs.

    Images are uint8 in 0 to 255, or floating point in [0, 1]: (N,H,W), (N,C,H,W) or (N,H,W,C), all
    of one size. Labels are (N,) integers 0 to K - 1. A key "validation" may stand beside "test";
    without it a tenth of the training images is kept for that.
    """
    # Replace these two lines by what reads your images, as np.load or torchvision's ImageFolder.
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16  # these pixels lie in 0 to 16

    order = np.random.default_rng(0).permutation(len(labels))  # fixed: the same images every time
    test, train = order[:test_images], order[test_images:]
    return {
        "train": (images[train], labels[train]),
        "test": (images[test], labels[test]),
        "class_names": [str(digit) for digit in range(10)],
    }
