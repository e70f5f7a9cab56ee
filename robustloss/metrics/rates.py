"""Error, attack success and detection numbers from plain arrays.

Scores are higher where an input is more typical of clean data. A detector rejects an input
when its score lies below a threshold; attacked inputs are what it should reject. All
comparisons are made in float64 on the scores as they come: no exp, no sigmoid, no binning.
"""

import math

import numpy as np


def auroc(clean_scores: np.ndarray, attacked_scores: np.ndarray) -> float:
    """Return the area under the ROC curve: P(clean > attacked) + 1/2 P(tie), exact.

    Args:
        clean_scores: (N,) higher is more typical of clean data; infinities allowed.
        attacked_scores: (M,) likewise.

    Returns:
        In [0, 1], 0.5 for scores that tell nothing; NaN when either side is empty.

    Raises:
        ValueError: a NaN score.

    Source: Mann-Whitney form with midranks (Hanley and McNeil 1982).
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    n, m = clean.size, attacked.size
    if n == 0 or m == 0:
        return math.nan
    # the rank of a score is the mean of the ranks of its equals: halves, exact in float64
    _, place, counts = np.unique(
        np.concatenate([clean, attacked]), return_inverse=True, return_counts=True
    )
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def roc_curve(
    clean_scores: np.ndarray, attacked_scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every operating point of the rule "score < threshold is rejected".

    Args:
        clean_scores: (N,), N >= 1.
        attacked_scores: (M,), M >= 1.

    Returns:
        (fpr, tpr, thresholds), each (U + 1,) for U distinct scores: the fraction of clean and
        of attacked inputs rejected, from (0, 0) to (1, 1), thresholds increasing. The last
        threshold is infinite and rejects everything.

    Raises:
        ValueError: a NaN score or an empty side.
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    _refuse_empty(clean, "clean")
    _refuse_empty(attacked, "attacked")
    distinct = np.unique(np.concatenate([clean, attacked]))
    fpr, tpr = (
        np.searchsorted(np.sort(side), distinct, side="left") / side.size
        for side in (clean, attacked)
    )
    return np.append(fpr, 1.0), np.append(tpr, 1.0), np.append(distinct, np.inf)


def threshold_at_fpr(clean_scores: np.ndarray, fpr: float) -> float:
    """Return the largest threshold that rejects at most `fpr` of the clean scores.

    Rejected is what scores below it. Ties are never split, so fewer may be rejected: none of
    constant scores.

    Args:
        clean_scores: (N,), N >= 1; of validation images where the threshold is to be used.
        fpr: fraction in [0, 1].

    Raises:
        ValueError: a NaN score, no score, or fpr outside [0, 1].
    """
    clean = check_scores(clean_scores, "clean")
    _refuse_empty(clean, "clean")
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr (={fpr}) must lie in [0, 1]: a fraction, not percent.")
    # 0.29 * 100 is 28.999999999999996: the nearest whole number is meant
    rejected = math.floor(fpr * clean.size + 1e-9)
    if rejected >= clean.size:
        return math.inf
    return float(np.partition(clean, rejected)[rejected])


def tpr_at_fpr(clean_scores: np.ndarray, attacked_scores: np.ndarray, fpr: float) -> float:
    """Return the fraction of attacked inputs rejected where at most `fpr` of the clean ones are.

    A point of the ROC curve, without interpolation: the threshold is that of the clean scores
    given. NaN when either side is empty.

    Args:
        clean_scores: (N,).
        attacked_scores: (M,).
        fpr: fraction in [0, 1].
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    if clean.size == 0 or attacked.size == 0:
        return math.nan
    return rejected_fraction(attacked, threshold_at_fpr(clean, fpr))


def clean_rejected_at_tpr(
    clean_scores: np.ndarray, attacked_scores: np.ndarray, tpr: float
) -> float:
    """Return the smallest fraction of clean inputs rejected where at least `tpr` of attacked are.

    The detection literature calls this, and also its mirror image, "FPR95"; hence the words.
    NaN when either side is empty.

    Args:
        clean_scores: (N,).
        attacked_scores: (M,).
        tpr: fraction in [0, 1].
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    if not 0 <= tpr <= 1:
        raise ValueError(f"tpr (={tpr}) must lie in [0, 1]: a fraction, not percent.")
    if clean.size == 0 or attacked.size == 0:
        return math.nan
    needed = math.ceil(tpr * attacked.size - 1e-9)
    if needed == 0:
        return 0.0
    # the threshold lies just above the last attacked score to catch, so ties fall with it
    last = np.partition(attacked, needed - 1)[needed - 1]
    return float(np.mean(clean <= last))


def equal_error_rate(clean_scores: np.ndarray, attacked_scores: np.ndarray) -> float:
    """Return the share at which as many clean inputs are rejected as attacked ones accepted.

    The two shares move in steps; where they cross between two thresholds, the straight line between
    the two points of the ROC curve is followed. NaN when either side is empty.

    Args:
        clean_scores: (N,).
        attacked_scores: (M,).

    Returns:
        In [0, 1]; 0.5 for scores that tell nothing, above it for scores that tell it upside down.
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    if clean.size == 0 or attacked.size == 0:
        return math.nan
    fpr, tpr, _ = roc_curve(clean, attacked)
    missed = 1 - tpr
    after = int(np.argmax(fpr >= missed))  # the first threshold at which clean ones lose more
    if after == 0:
        return float(fpr[0])
    gap, next_gap = (missed - fpr)[after - 1], (fpr - missed)[after]
    share = gap / (gap + next_gap)
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def rejected_fraction(scores: np.ndarray, threshold: float) -> float:
    """Return the fraction of scores (N,) strictly below a threshold; NaN for no scores."""
    scores = check_scores(scores, "given")
    return float(np.mean(scores < threshold)) if scores.size else math.nan


def average_precision(clean_scores: np.ndarray, attacked_scores: np.ndarray) -> float:
    """Return the mean precision over the attacked inputs, lowest scores first; ties enter together.

    Attacked is the positive class, so the value depends on the share of attacked inputs (which
    is also the value of scores that tell nothing). Not the trapezoid under the
    precision-recall curve, which is too high. NaN when either side is empty.

    Args:
        clean_scores: (N,).
        attacked_scores: (M,).
    """
    clean, attacked = check_sides(clean_scores, attacked_scores)
    if clean.size == 0 or attacked.size == 0:
        return math.nan
    distinct, caught = np.unique(attacked, return_counts=True)
    true = np.cumsum(caught)
    false = np.searchsorted(np.sort(clean), distinct, side="right")
    return float(np.sum(caught / attacked.size * (true / (true + false))))


def error(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of images whose prediction (N,) is not the label (N,); NaN for none."""
    _check_lengths(predictions=predictions, labels=labels)
    return float(np.mean(predictions != labels)) if len(labels) else math.nan


def attack_success_rate(
    clean_predictions: np.ndarray, attacked_predictions: np.ndarray, labels: np.ndarray
) -> float:
    """Return the fraction of the initially correct images that the attack made wrong.

    Args:
        clean_predictions: (N,) classes predicted without the attack.
        attacked_predictions: (N,) classes predicted under it.
        labels: (N,).

    Returns:
        In [0, 1]; NaN when no image was initially correct.
    """
    _check_lengths(
        clean_predictions=clean_predictions,
        attacked_predictions=attacked_predictions,
        labels=labels,
    )
    correct = clean_predictions == labels
    return error(attacked_predictions[correct], labels[correct])


def undetected_success(
    correct: np.ndarray, wrong_after: np.ndarray, attacked_scores: np.ndarray, threshold: float
) -> float:
    """Return the fraction of the initially correct images made wrong and not rejected.

    The one detection number that compares losses fairly: a loss gains by resisting and by
    noticing alike.

    Args:
        correct: (N,) bool, the clean image is classified correctly.
        wrong_after: (N,) bool, the attacked image is classified wrongly.
        attacked_scores: (N,) of the attacked images.
        threshold: scores below it are rejected; chosen on clean validation images.

    Returns:
        In [0, 1]; NaN when no image was initially correct.
    """
    _check_lengths(correct=correct, wrong_after=wrong_after, attacked_scores=attacked_scores)
    passed = check_scores(attacked_scores, "attacked") >= threshold
    counted = (wrong_after & passed)[correct]
    return float(np.mean(counted)) if counted.size else math.nan


def log_posterior(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax posterior, accurate at both ends.

    Args:
        logits: (N, K), -inf allowed, with a finite maximum in every row.

    Returns:
        (N, K) float64, nats. The largest of a row is -log1p(sum of the others relative to it),
        so it stays below 0, and distinct, up to a logit gap of about 745.

    Raises:
        ValueError: a NaN, or a row whose maximum is not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    top = logits.max(axis=1, keepdims=True)  # NaN wins, so this finds it too
    if bad := int((~np.isfinite(top)).sum()):
        raise ValueError(
            f"logits of {bad} of {len(logits)} rows have no finite maximum (NaN or infinite): "
            "there is no posterior."
        )
    relative = logits - top
    others = np.exp(relative)
    np.put_along_axis(others, logits.argmax(axis=1, keepdims=True), 0.0, axis=1)
    return relative - np.log1p(others.sum(axis=1, keepdims=True))


def max_log_posterior(logits: np.ndarray) -> np.ndarray:
    """Return the log posterior (N,) of the predicted class, nats, <= 0; see `log_posterior`."""
    return log_posterior(logits).max(axis=1)


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes stand before the true one, (N,) int32; 0 for a right prediction.

    Of equal scores the lower class comes first, as in argmax.

    Args:
        scores: (N, K).
        labels: (N,).
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    lower = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & lower)).sum(1, dtype=np.int32)


def check_sides(
    clean_scores: np.ndarray, attacked_scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of both sides as `check_scores` does.

    Args:
        clean_scores: (N,).
        attacked_scores: (M,).
    """
    return check_scores(clean_scores, "clean"), check_scores(attacked_scores, "attacked")


def check_scores(scores: np.ndarray, name: str) -> np.ndarray:
    """Return scores (N,) in float64; refuse NaN and any other shape.

    Args:
        scores: (N,) numbers.
        name: of the side, for the message.

    Raises:
        ValueError: a NaN, or more than one axis.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} scores (shape {array.shape}) must have one axis.")
    if bad := int(np.isnan(array).sum()):
        raise ValueError(f"{bad} of {array.size} {name} scores are NaN: they have no rank.")
    return array


def _refuse_empty(scores: np.ndarray, name: str) -> None:
    if scores.size == 0:
        raise ValueError(f"{name} scores are empty: no rate and no threshold follows from them.")


def _check_lengths(**arrays: np.ndarray) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths {lengths} must be equal: one entry per image.")
