"""The attacks that `[detection] adapt = true` adds: one for each score that none aims at yet."""

from collections.abc import Sequence

from robustloss.spec.attack_kinds import attack_kind, attack_norm
from robustloss.spec.attacks import AttackSpec
from robustloss.spec.detection import LIKELIHOOD, DetectionSpec, score_words
from robustloss.spec.text import slug

ATTACK = "adaptive_selective"  # no weight to choose, one path; see the guide for what it found


def find_aim(attack: AttackSpec) -> str | None:
    """Return the score that an attack of ours deceives; None of one that knows no detector."""
    if attack_kind(attack.name) != "adaptive" or ":" in attack.name:
        return None
    return str(attack.params.get("score", LIKELIHOOD))


def add_adaptive(attacks: Sequence[AttackSpec], detection: DetectionSpec) -> tuple[AttackSpec, ...]:
    """Return the attacks of a spec with one on every score, in the order of the scores.

    Each added one is like the spec's own `adaptive_selective` where there is one. Its eps are those
    of the adaptive attacks, else those of all attacks in the norm of the first.

    Args:
        attacks: of the spec.
        detection: its table [detection].

    Raises:
        ValueError: no attack has an eps above 0, or one has the label of an added one.
    """
    if not detection.adapt:
        return tuple(attacks)
    knowing = [attack for attack in attacks if find_aim(attack)]
    like = next((attack for attack in knowing if attack.name == ATTACK), None)
    first = like or next((a for a in (*knowing, *attacks) if _norm(a) and max(a.eps) > 0), None)
    if first is None:
        raise ValueError("needs an attack with an eps above 0: the added ones get its budgets.")
    alike = [a for a in knowing or attacks if _norm(a) == _norm(first)]
    eps = sorted({each for attack in alike for each in attack.eps if each > 0})
    params = {"norm": _norm(first)} if like is None else like.params
    aims, slugs = {find_aim(attack) for attack in attacks}, {attack.slug for attack in attacks}
    added = []
    for score in detection.scores:
        if score in aims:
            continue
        label = f"Adaptive on {score_words(score.rpartition('/')[2])}"  # a file without its folders
        if slug(label) in slugs:
            raise ValueError(f'adds an attack "{label}". Give yours another label.')
        added.append(
            AttackSpec(
                name=ATTACK,
                label=label,
                params={**params, "score": score},
                eps=tuple(eps),
                batch_size=first.batch_size,
            )
        )
    return (*attacks, *added)


def _norm(attack: AttackSpec) -> str | None:
    return attack_norm(attack.name, attack.params)
