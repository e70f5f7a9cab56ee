"""Which attacks are shown in full when there are many, and how strong they are."""

from robustloss.reports.reading.numbers import AttackInfo, Numbers
from robustloss.spec.attack_kinds import attack_kind

FEW = 3  # attacks up to which every one is shown in full
FEW_CLASSES = 12  # classes that fit into a strip of dots


def featured(numbers: Numbers) -> list[AttackInfo]:
    """Return the attacks whose figures of single images are drawn, in the order of the spec.

    All of up to three. Of more: the first; the one of its norm that makes most mistakes without
    knowing the detector; and the adaptive one that gets most mistakes past it.
    """
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    if len(attacks) <= FEW:
        return attacks
    adaptive = [attack for attack in attacks if attack_kind(attack.name) == "adaptive"]
    naive = [a for a in attacks if a not in adaptive and a.norm == attacks[0].norm]
    chosen = [attacks[0], strongest(numbers, naive)]
    if adaptive:
        chosen.append(_highest(numbers, adaptive, "undetected_success_at_5fpr"))
    return [attack for attack in attacks if attack in chosen]


def strongest(numbers: Numbers, attacks: list[AttackInfo]) -> AttackInfo | None:
    """Return the attack with the highest mean error over losses, at the eps that all have.

    An attack that knows the detector is left out where there is another: it seeks other images.
    """
    naive = [attack for attack in attacks if attack_kind(attack.name) != "adaptive"]
    return _highest(numbers, naive or attacks, "error")


def _highest(numbers: Numbers, attacks: list[AttackInfo], metric: str) -> AttackInfo | None:
    """Return the attack with the highest mean over losses, at the eps that all of them have."""
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
