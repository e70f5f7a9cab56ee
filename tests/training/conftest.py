"""The digits that trainings here learn from."""

import pytest

from robustloss.data.load import load_dataset
from robustloss.spec.data import DataSpec


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataSpec(name="digits", train_size=300), quiet=True)
