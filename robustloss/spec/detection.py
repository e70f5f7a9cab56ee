"""Tables [detection], [checks], [outside]."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from robustloss.spec.base import Count, Eps, Labelled, Name, Table, as_tuple, raise_at
from robustloss.spec.data import DATASET_SUMMARIES
from robustloss.spec.errors import Problems, did_you_mean, rule_error

SCORE_NAMES = (
    *("class_log_likelihood", "marginal_log_likelihood", "max_log_posterior", "max_logit"),
    *("energy", "mahalanobis", "relative_mahalanobis", "knn", "gaussian_mixture", "feature_norm"),
)


class DetectionSpec(Table):
    """Table [detection]: how attacked images are told from clean ones."""

    scores: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = Field(
        default=SCORE_NAMES,
        description="detection scores: robustloss list scores; or your own, module:function",
        json_schema_extra={"shown_default": "all of them"},
    )
    fit_size: Count = Field(
        default=5000, description="clean training images that scores are fitted on"
    )
    temperature: bool = Field(
        default=False,
        description="also say how calibrated each loss is after temperature scaling",
    )
    noise: bool = Field(
        default=True,
        description="also score noise as large as each attack was on each image, a control",
    )

    @field_validator("scores")
    @classmethod
    def _known(cls, scores: tuple[str, ...]) -> tuple[str, ...]:
        problems = Problems()
        for i, score in enumerate(scores):
            if ":" in score and score not in scores[:i]:
                continue  # the user's own: loaded when the run begins
            if ":" not in score and score not in SCORE_NAMES:
                hint = did_you_mean(score, SCORE_NAMES) or "."
                problems.add((i,), score, f"must be one of {', '.join(SCORE_NAMES)}{hint}")
            elif score in scores[:i]:
                problems.add((i,), score, "is listed twice. Remove one.")
        problems.raise_if_any()
        return scores


class ChecksSpec(Table):
    """Table [checks]: the short trial attacks that tell a robust model from a masked gradient."""

    images: int = Field(
        default=200, ge=0, le=2000, description="test images that are tried; 0 leaves it out"
    )
    eps: Annotated[Eps | None, Field()] = Field(
        default=None,
        description="L-inf budget of the trials, in (0, 1]",
        json_schema_extra={"shown_default": "the smallest of the L-inf attacks"},
    )

    @field_validator("eps")
    @classmethod
    def _in_the_box(cls, eps: float | None) -> float | None:
        if eps is not None and not 0 < eps <= 1:
            raise rule_error("must lie in (0, 1]: pixel units, not 0–255.")
        return eps


OUTSIDE_SETS = (*DATASET_SUMMARIES, "uniform_noise", "held_out_classes")


class OutsideSpec(Labelled):
    """One table [[outside]]: images that are not of the data, shown to every network."""

    name: Name = Field(
        description=f"which images: {', '.join(OUTSIDE_SETS)}", examples=["fashion_mnist"]
    )
    images: Count = Field(default=2000, description="how many of them at most, spread evenly")
    folder: Name | None = Field(
        default=None,
        description="image_folder: any folder of images, or a tar archive of one; relative to the "
        "spec, then to --data",
        json_schema_extra={"shown_default": "required by image_folder"},
    )

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OUTSIDE_SETS:
            hint = did_you_mean(name, list(OUTSIDE_SETS)) or "."
            raise rule_error(f"must be one of {', '.join(OUTSIDE_SETS)}{hint}")
        return name

    @model_validator(mode="after")
    def _folder_fits(self) -> Self:
        if self.name == "image_folder" and self.folder is None:
            raise_at("folder", None, "must be given: image_folder reads the folder it names.")
        if self.name != "image_folder" and self.folder is not None:
            rule = f'is for name = "image_folder" only, not {self.name!r}. Remove it.'
            raise_at("folder", self.folder, rule)
        return self
