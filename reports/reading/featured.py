"""Which attacks are shown in full when there are many, and how strong they are."""

from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.spec.attack_kinds import attack_kind

FEW = 3


def featured(numbers: Numbers) -> list[AttackInfo]:
    """The attacks whose figures of single images are drawn.

    All of up to three; of more the first, the one of its norm that makes most mistakes without
    knowing the detector, and the adaptive one that gets most mistakes past it. In the order of the
    spec.
    """
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    if len(attacks) <= FEW:
        return attacks
    adaptive = [attack for attack in attacks if attack_kind(attack.name) == "adaptive"]
    naive = [a for a in attacks if a not in adaptive and a.norm == attacks[0].norm]
    chosen = [attacks[0], _highest(numbers, naive, "error")]
    if adaptive:
        chosen.append(_highest(numbers, adaptive, "undetected_success_at_5fpr"))
    return [attack for attack in attacks if attack in chosen]


def _highest(numbers: Numbers, attacks: list[AttackInfo], metric: str) -> AttackInfo | None:
    """The attack with the highest mean over losses, at the eps that all have; first of equals."""
    shared = set.intersection(*(set(a.strengths) for a in attacks)) if attacks else set()

    def mean(attack: AttackInfo) -> float:
        found = [
            value.mean
            for label in numbers.labels
            for eps in shared or attack.strengths
            if (value := numbers.get(label, attack.label, eps, metric))
        ]
        return sum(found) / len(found) if found else -1.0

    return max(attacks, key=mean, default=None)


FEW_CLASSES = 12  # classes that fit into a strip of dots
