from fractions import Fraction

import numpy as np
import pytest

from robustloss.notation import eps_text, interval_text


@pytest.mark.parametrize(
    "written",
    ["0", "0.1", "0.005", "1", "1.5", "10000", *(f"{k}/255" for k in (1, 2, 3, 8, 16, 85, 300))],
)
def test_an_eps_is_shown_as_a_spec_has_it(written):
    assert eps_text(float(Fraction(written))) == written


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (np.float32(8 / 255), "8/255"),  # what passed through float32
        (np.float32(0.1), "0.1"),
        (0.1 + 0.2, "0.3"),
        (51 / 255, "0.2"),
        (1 / 7, "1/7"),
        (1 / 64, "1/64"),
        (0.0313725, "0.03137"),  # no 8/255, only near it
        (0.123456, "0.1235"),
        (1 / 257, "0.003891"),  # no person's fraction
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_an_eps_that_nobody_wrote_so_is_short(eps, text):
    assert eps_text(eps) == text


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ((0.134, 0.119, 0.150), "13.4 [11.9, 15.0]"),
        ((0.0066, 0.0052, 0.0084), "0.66 [0.52, 0.84]"),
        ((0.098, 0.09, 0.11), "9.80 [9.00, 11.00]"),
        ((-0.134, -0.19, -0.08), "−13.4 [−19.0, −8.0]"),
        ((0.0, -0.00001, 0.01), "0.00 [0.00, 1.00]"),  # no minus before nothing
        ((0.5, None, None), "50.0"),
    ],
)
def test_the_mean_decides_the_digits_of_its_interval(found, text):
    assert interval_text(*found, unit=100.0) == text


def test_an_area_keeps_three_digits():
    assert interval_text(0.9571, 0.9534, 0.9608, digits=3) == "0.957 [0.953, 0.961]"
