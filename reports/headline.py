"""The answer in plain words, computed from the numbers, claiming no more than the intervals do."""

from robustloss.reports.headline_one import answers_of_one, clean_answer, fooled
from robustloss.reports.headline_strong import adaptive_answers, radius_answer, worst_answer
from robustloss.reports.numbers import Numbers
from robustloss.reports.ranking import Finding


def headline(numbers: Numbers) -> list[Finding]:
    """The findings, in the order of the questions that the project asks.

    With several attacks of one norm the worst case over them leads, then how far the losses are
    from their first mistake, then what becomes of the detector when the attack knows it; of the
    first attack the error remains, because the paper has it. Otherwise the first attack is told in
    full; of every other the error and the undetected successes at its largest eps.
    """
    attacks = [attack for attack in numbers.attacks if attack.strengths]
    if not numbers.worst_cases:
        parts = [
            part
            for i, attack in enumerate(attacks)
            for part in answers_of_one(numbers, attack, full=i == 0, alone=len(attacks) == 1)
        ]
        return [clean_answer(numbers), *parts]
    found: list[Finding | None] = [clean_answer(numbers)]
    for case in numbers.worst_cases:
        found += [worst_answer(numbers, case), radius_answer(numbers, case)]
    found += adaptive_answers(numbers)
    first = attacks[0]
    if len(first.strengths) > 1:
        found.append(fooled(numbers, first, first.strengths[0]))
    found.append(fooled(numbers, first, first.strengths[-1]))
    return [finding for finding in found if finding is not None]
