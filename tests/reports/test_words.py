"""How numbers are written."""

import pytest

from reports.words import short


@pytest.mark.parametrize(
    ("value", "text"),
    [(3823.4, "3,823"), (999.4, "999"), (12.345, "12.3"), (-0.01234, "−0.0123"), (0.0, "0")],
)
def test_lengths_have_no_exponents(value: float, text: str) -> None:
    assert short(value) == text
