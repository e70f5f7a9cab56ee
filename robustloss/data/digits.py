"""The handwritten digits that come with scikit-learn: no file, no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from robustloss.data.reader import ArrayContent, Content, Part, Place
from robustloss.spec.data import DataSpec

SCALE = 16.0  # the pixels are counts of dots, 0 to 16


class DigitsReader:
    """Reads the 1,797 digits; they have no test set of their own."""

    def read(self, data: DataSpec, place: Place) -> Content:
        """Read the digits; see `Reader.read`."""
        # As sklearn.datasets.load_digits reads it. Importing that takes longer than all else here.
        package = find_spec("sklearn")
        assert package is not None  # robustloss depends on it
        assert package.origin is not None
        file = Path(package.origin).parent / "datasets/data/digits.csv.gz"
        rows = np.loadtxt(file, delimiter=",", dtype=np.int64)
        images, labels = rows[:, :-1].reshape(-1, 8, 8).astype(np.uint8), rows[:, -1]
        everything = Part.whole(images, labels)
        return ArrayContent(where=data.name, train=everything, test=None, scale=SCALE)
