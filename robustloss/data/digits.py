"""The handwritten digits that come with scikit-learn: no file, no download."""

import numpy as np

from robustloss.data.reader import ArrayContent, Content, Part, Place
from robustloss.spec.data import DataSpec

SCALE = 16.0  # the pixels are counts of dots, 0 to 16


class DigitsReader:
    """Reads the 1,797 digits; they have no test set of their own."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read the digits; see `Reader.read`."""
        from sklearn.datasets import load_digits  # late, because only these images need it

        images, labels = load_digits(return_X_y=True)
        everything = Part.whole(images.reshape(-1, 8, 8).astype(np.uint8), labels)
        return ArrayContent(where=data.name, train=everything, test=None, scale=SCALE)
