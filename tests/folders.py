"""Folders of generated images, small enough for a test."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def pixels(rng, height, width, grey=False):
    """A smooth pattern, so that JPEG keeps it roughly."""
    coarse = rng.integers(0, 256, (3, 3) if grey else (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)


def write_folder(
    root: Path, *, train=10, test=4, size=None, suffix="png", classes=CLASSES, grey=()
) -> Path:
    """Write train/CLASS/NN.SUFFIX and test/CLASS/NN.SUFFIX.

    Args:
        root: the folder.
        train: images a class.
        test: images a class.
        size: (H, W); None for sizes from 9 to 20 that vary.
        suffix: png or jpg.
        classes: their names.
        grey: relative paths that become one-channel files.
    """
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                path = folder / f"{number:02}.{suffix}"
                height, width = size or rng.integers(9, 21, 2).tolist()
                one = path.relative_to(root).as_posix() in grey
                pixels(rng, height, width, grey=one).save(path)
    return root
