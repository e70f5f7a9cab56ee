"""Tables [detection] and [checks]: how attacked images are told from clean ones, and doubts."""

from typing import Self

from pydantic import field_validator, model_validator

from robustloss.spec.base import Count, Eps, ListOf, Table, check_each, declare, pixel_rule
from robustloss.spec.errors import choice_rule, rule_error
from robustloss.spec.prefixes import canonical_name, misplaced_rule

LIKELIHOOD = "class_log_likelihood"
"""The paper's score, and the one that adaptive attacks aim at where they name none."""

SCORE_WORDS = {
    LIKELIHOOD: "log-likelihood",
    "marginal_log_likelihood": "marginal likelihood",
    "max_log_posterior": "largest posterior",
    "max_logit": "largest logit",
    "energy": "energy",
    "mahalanobis": "Mahalanobis",
    "relative_mahalanobis": "relative Mahalanobis",
    "knn": "nearest neighbours",
    "gaussian_mixture": "Gaussian mixture",
    "feature_norm": "feature norm",
}
"""Every detection score, in the order of tables and figures, as a reader knows it. What computes
them stands in `analysis.detection.scores`."""

SCORE_NAMES = tuple(SCORE_WORDS)


def score_words(score: str) -> str:
    """Return a score as a reader knows it."""
    return SCORE_WORDS.get(score, score.replace("_", " "))


class DetectionSpec(Table):
    """Table [detection]: how attacked images are told from clean ones."""

    scores: ListOf[str] = declare(
        "detection scores: robustloss list scores; or your own, module:function",
        SCORE_NAMES,
        shown="all of them",
    )
    fit_size: Count = declare("clean training images that scores are fitted on", 5000)
    temperature: bool = declare(
        "also say how calibrated each loss is after temperature scaling", False
    )
    noise: bool = declare(
        "also score noise as large as each attack was on each image, a control", True
    )
    adapt: bool = declare(
        "also run adaptive_selective on every score that no attack of the spec aims at", False
    )

    @field_validator("scores")
    @classmethod
    def check_scores(cls, scores: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse unknown scores; a name with a colon is the user's own, loaded by the run."""

        scores = tuple(canonical_name(score, SCORE_NAMES) for score in scores)

        def broken(score: str) -> str:
            if ":" in score:
                return misplaced_rule(score, "score")
            return "" if score in SCORE_NAMES else choice_rule(score, SCORE_NAMES)

        return check_each(scores, broken)


class ChecksSpec(Table):
    """Table [checks]: the short trial attacks that tell a robust model from a masked gradient."""

    images: int = declare("test images that are tried; 0 leaves it out", 200, ge=0, le=2000)
    eps: Eps | None = declare(
        "L-inf budget of the trials, in (0, 1]",
        None,
        shown="the smallest of the L-inf attacks",
    )
    unit_test: bool = declare(
        "also test every attack on networks that are known to be breakable", False
    )

    @field_validator("eps")
    @classmethod
    def check_eps(cls, eps: float | None) -> float | None:
        """Refuse a budget that reaches every image."""
        if eps is not None and not 0 < eps <= 1:
            raise rule_error(pixel_rule(eps))
        return eps

    @model_validator(mode="after")
    def check_unit_test(self) -> Self:
        """Refuse a unit test that has no images."""
        if self.unit_test and not self.images:
            self._refuse("unit_test", "needs checks.images above 0, the images that it is made of.")
        return self
