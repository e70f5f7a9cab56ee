"""The scores of one cell, computed once and stored in scores-KEY.npz.

Every detection number, table and figure reads them there, so that fitting and nearest neighbours
cost a run once.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from robustloss.analysis.detection.scores import Score, build_scores
from robustloss.analysis.detection.separation import check_same_images
from robustloss.results.records import LazyRecords, Record, validation_record
from robustloss.results.scores import CLEAN, VALIDATION, Array, Pass, StoredScores, describe_pass
from robustloss.spec.detection import LIKELIHOOD

VERSION = 1  # raise when the same records would give other scores

ROW_SCORE = LIKELIHOOD  # the score of the detection columns of `rows`


def compute_scores(
    names: Sequence[str],
    reference: Mapping[str, Array],
    passes: Mapping[Pass, Record],
    *,
    density: bool,
    plugins: Mapping[str, Score] | None = None,
    name: str = "cell",
) -> StoredScores:
    """Return every score of every pass.

    Args:
        names: of `scores.SCORE_NAMES`, or keys of `plugins`.
        reference: arrays that scores are fitted on, see `scores.build_scores`.
        passes: their records, the clean pass among them; each is looked up once, so the mapping
            may load them lazily.
        density: whether the loss's class_log_likelihood is a normalised log-density.
        plugins: the user's own scores by name.
        name: of the cell, for messages.

    Raises:
        ValueError: an unknown score, a record whose numbers have no rank, or a score that is not
            one number an image.
    """
    fitted = build_scores(names, reference, density=density, plugins=plugins)
    values: dict[tuple[str, Pass], Array] = {}
    wrong: dict[Pass, Array] = {}
    index = np.zeros(0, np.int64)
    for which in passes:
        record = passes[which]
        record.check_numbers(f"{name}, {describe_pass(which)}")
        for key, score in fitted.items():
            found = np.asarray(score(record))
            if found.shape != (record.n,) or found.dtype.kind not in "fiub":
                raise ValueError(
                    f"score {key} returned {found.dtype} of shape {found.shape}. Return one real "
                    f"number an image, shape ({record.n},); higher is more typical of clean images."
                )
            found = found.astype(np.float64)
            if bad := int(np.isnan(found).sum()):
                raise ValueError(
                    f"score {key} is NaN for {bad} of {record.n} images: it has no rank."
                )
            values[key, which] = found
        if which.kind != "outside":
            wrong[which] = ~record.correct
        if which == CLEAN:
            index = record.index
    return StoredScores(tuple(fitted), values, wrong, index)


CLEAN_KEY = ("none", 0.0)  # attack_label and eps of the clean pass


def score_names(scores: Sequence[str]) -> tuple[str, ...]:
    """Return the scores that a cell needs: the row score, then those of the spec."""
    return (ROW_SCORE, *(score for score in scores if score != ROW_SCORE))


def passes_of(
    records: Mapping[tuple[str, float], Record],
    reference: Mapping[str, np.ndarray],
    noise: Mapping[tuple[str, float], Record],
    outside: Mapping[str, Record],
    shifted: Mapping[tuple[str, float], Record] | None = None,
) -> Mapping[Pass, Record]:
    """Return the records of a cell by what they are passes of, its validation images first.

    Each is looked up when it is asked for; a control that is not of the test images is refused
    then, with a ValueError.

    Args:
        records: of the test images, by (attack_label, eps).
        reference: the arrays of reference-KEY.npz, which hold the validation images' record.
        noise: the controls of attacked records, by the same keys.
        outside: records of images that are not of the data, by label.
        shifted: records of shifted images, by shift and severity.
    """
    clean = records[CLEAN_KEY]

    def control(key: tuple[str, float]) -> Record:
        found = noise[key]
        check_same_images(clean, found)
        return found

    makers: dict[Pass, Callable[[], Record]] = {
        VALIDATION: partial(validation_record, reference),
        CLEAN: lambda: clean,
    }
    makers |= {
        Pass("attacked", *k): partial(records.__getitem__, k) for k in records if k != CLEAN_KEY
    }
    makers |= {Pass("noise", *key): partial(control, key) for key in noise}
    makers |= {Pass("outside", label): partial(outside.__getitem__, label) for label in outside}
    for key in shifted or ():
        makers[Pass("shifted", *key)] = partial((shifted or {}).__getitem__, key)
    return LazyRecords(makers)
