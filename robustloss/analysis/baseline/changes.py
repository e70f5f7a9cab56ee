"""Is a number worse than it was, by more than a tolerance? One-sided tests over images and seeds.

Two units, as in `tables.comparisons`. Of the same networks, or of one network on each side, the
images are the unit, paired: would these networks differ on other images? Of several trainings the
training is the unit: would the loss be worse if it were trained again? There the variance over
seeds counts, and beside it what other images would change in the difference of the means.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from robustloss.metrics.bootstrap import (
    Resamples,
    degrees_of_freedom,
    p_value,
    student_quantile,
)
from robustloss.metrics.estimates import Estimate
from robustloss.metrics.paired_tests import mcnemar_test, paired_margin


@dataclass(frozen=True)
class Change:
    """By how much a number got worse, and how sure that is.

    Attributes:
        worse_by: the difference, positive where the run is worse.
        test: name of the test.
        p_value: of "worse by no more than the tolerance", one-sided.
        spread: standard error of the difference.
        freedom: degrees of freedom of the spread.
    """

    worse_by: float
    test: str
    p_value: float
    spread: float
    freedom: float

    def detectable(self, level: float, tolerance: float, power: float = 0.8) -> float:
        """Return the smallest true worsening that would have been shown with this power.

        Args:
            level: one-sided, of this one test.
            tolerance: that the worsening must exceed.
            power: in (0, 1).
        """
        width = student_quantile(level, self.freedom) + student_quantile(1 - power, self.freedom)
        return tolerance + width * self.spread


def compare_images(
    run: Sequence[Estimate],
    baseline: Sequence[Estimate],
    sign: int,
    tolerance: float,
    drawn: Resamples,
) -> Change:
    """Test networks against networks on the same images.

    An error of one network is tested by McNemar's test, or against a tolerance by Tango's; all else
    by resampling the images, the same for both sides.

    Args:
        run: the number, of each network.
        baseline: of the network that stands against each.
        sign: +1 where more is worse, -1 where less is.
        tolerance: in the unit of the number, >= 0.
        drawn: resamples of the N images.
    """
    gap = sign * float(np.mean([m.value for m in run]) - np.mean([m.value for m in baseline]))
    influence = np.mean([m.influence for m in run], axis=0) - np.mean(
        [m.influence for m in baseline], axis=0
    )
    test = "paired image bootstrap"
    if not influence.any():  # every image does the same on both sides, or all turned at once
        return Change(gap, test, 1.0 if gap <= tolerance else 0.0, 0.0, math.inf)
    n = influence.size
    spread = float(np.sqrt(influence.var() / n))
    if len(run) == 1 and (first := run[0].wrong) is not None:
        second = baseline[0].wrong
        assert second is not None
        only_run, only_baseline = int((first & ~second).sum()), int((second & ~first).sum())
        if tolerance > 0:
            p = paired_margin(only_run, only_baseline, n, tolerance)
            return Change(gap, "Tango's score test", p, spread, math.inf)
        test, two_sided = mcnemar_test(only_run, only_baseline)
        return Change(gap, test, _one_side(two_sided, gap), spread, math.inf)
    resampled = sign * (
        np.mean([m.resample(drawn) for m in run], axis=0)
        - np.mean([m.resample(drawn) for m in baseline], axis=0)
    )
    freedom = degrees_of_freedom(influence)
    two_sided = p_value(resampled - tolerance, gap - tolerance, freedom=freedom)
    spread = float(np.nanstd(resampled)) if np.isfinite(resampled).any() else math.nan
    return Change(gap, test, _one_side(two_sided, gap - tolerance), spread, freedom)


def _one_side(two_sided: float, excess: float) -> float:
    """Return the p-value of "no worse" from that of "no difference"."""
    return two_sided / 2 if excess > 0 else 1 - two_sided / 2


def compare_seeds(
    run: Sequence[Estimate],
    baseline: Sequence[Estimate],
    sign: int,
    tolerance: float,
    *,
    paired: bool,
) -> Change:
    """Test trainings against trainings, evaluated on the same images.

    The variance of the difference of the means has two parts. The first is that of the values over
    seeds, which holds whatever a training varies, the noise of single images included; it is at
    least that noise. The second is that of the images: how much the mean over seeds of what an
    image adds differs between the sides, less the noise of the seeds in it. It is 0 where the same
    trainings are compared. A side with one seed is taken to vary as the other does.

    Args:
        run: the number, of each seed.
        baseline: likewise; with at least three seeds on both sides together.
        sign: +1 where more is worse, -1 where less is.
        tolerance: in the unit of the number, >= 0.
        paired: the seeds of both sides are the same, in the same order, and at least two.

    Source: Welch 1947 (two sides), Satterthwaite 1946 (degrees of freedom); images and seeds as
        crossed random effects, as Gallas 2006, doi:10.1016/j.acra.2005.11.030, has cases and
        readers.
    """
    sides = [np.array([m.value for m in side]) * sign for side in (run, baseline)]
    added = [np.stack([m.influence for m in side]) * sign for side in (run, baseline)]
    gap = float(sides[0].mean() - sides[1].mean())
    per_image = added[0].mean(0) - added[1].mean(0)
    if paired:
        sides, added = [sides[0] - sides[1]], [added[0] - added[1]]
        shares = [1 / len(sides[0])]
    elif single := [side for side in sides if len(side) == 1]:
        # one new training against several: the spread of those, once for it, once for their mean
        both = [place for place, side in enumerate(sides) if len(side) > 1]
        sides, added = [sides[place] for place in both], [added[place] for place in both]
        shares = [len(single) + 1 / len(sides[0])]
    else:
        shares = [1 / len(side) for side in sides]
    n = per_image.size
    variances, freedoms, noise = [], [], 0.0
    for values, own, share in zip(sides, added, shares, strict=True):
        least = float(own.var(axis=0, ddof=1).mean()) / n
        variances.append(share * max(float(values.var(ddof=1)), least))
        freedoms.append(len(values) - 1.0)
        noise += share * least
    images = max(0.0, float(per_image.var(ddof=1)) / n - noise)
    variances.append(images)
    freedoms.append(degrees_of_freedom(per_image))
    total = sum(variances)
    name = "paired t" if paired else "Student's t" if len(sides) == 1 else "Welch's t"
    if total == 0:  # every image and seed agree, as at an error of 0 or 1
        return Change(gap, name, 1.0 if gap <= tolerance else 0.0, 0.0, freedoms[0])
    freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    spread = math.sqrt(total)
    p = float(stdtr(freedom, -(gap - tolerance) / spread))
    return Change(gap, name, p, spread, freedom)
