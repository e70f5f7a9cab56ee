"""Attacks on scores: which names are taken, and what `[detection] adapt` adds."""

import pytest

from robustloss.spec.detection import LIKELIHOOD, SCORE_NAMES
from robustloss.spec.errors import SpecError
from robustloss.spec.load import load_spec
from tests.small_run import changed

FGSM = {"name": "fgsm", "label": "fgsm", "eps": [0, 0.1, 0.3]}
L2 = {"name": "cw", "eps": [0.5, 2.0]}
AWARE = {"name": "adaptive_selective", "params": {"steps": 7}, "eps": [0.2], "batch_size": 50}


def adapted(*attacks, scores=("energy", "knn"), **keys):
    detection = {"scores": [*scores], "adapt": True, **keys}
    return load_spec(changed(attacks=[*attacks], detection=detection)).attacks


def test_nothing_is_added_unasked():
    assert len(load_spec(changed(attacks=[FGSM])).attacks) == 1


def test_every_score_is_attacked_at_the_eps_of_the_first_norm():
    _, _, *added = adapted(FGSM, L2)
    assert [(a.name, a.label, a.eps) for a in added] == [
        ("adaptive_selective", "Adaptive on energy", (0.1, 0.3)),
        ("adaptive_selective", "Adaptive on nearest neighbours", (0.1, 0.3)),
    ]
    assert added[0].params == {"norm": "linf", "score": "energy"}
    _, _, *added = adapted(L2, FGSM)
    assert {(a.eps, a.params["norm"]) for a in added} == {((0.5, 2.0), "l2")}


def test_an_added_attack_is_like_the_specs_own():
    joint = {"name": "adaptive_joint", "label": "joint", "eps": [0.1]}
    *_, last = adapted(FGSM, joint, AWARE, scores=[LIKELIHOOD, "knn"])
    assert last.params == {"steps": 7, "score": "knn"}
    assert (last.eps, last.batch_size) == ((0.1, 0.2), 50)  # those of all adaptive attacks


def test_what_is_attacked_already_gets_no_second_attack():
    mine = {"name": "adaptive_joint", "label": "mine", "params": {"score": "energy"}, "eps": [0.1]}
    attacks = adapted(mine, AWARE, scores=SCORE_NAMES)
    assert len(attacks) == len(SCORE_NAMES)
    spec = load_spec(changed(attacks=[FGSM], detection={"adapt": True}))
    assert load_spec(spec.as_written()).attacks == spec.attacks  # nor when it is read again


def test_a_score_of_ones_own_is_called_by_its_file():
    *_, last = adapted(FGSM, scores=["folder/own.py:gap"])
    assert (last.label, last.params["score"]) == ("Adaptive on own.py:gap", "folder/own.py:gap")


@pytest.mark.parametrize(
    ("attacks", "scores", "message"),
    [
        ([FGSM | {"eps": [0]}], ["knn"], "detection.adapt .*needs an attack with an eps above 0"),
        (
            [FGSM, FGSM | {"label": "adaptive on ENERGY"}],
            ["energy"],
            'adds an attack "Adaptive on energy". Give yours another label',
        ),
    ],
)
def test_what_cannot_be_added_is_refused(attacks, scores, message):
    with pytest.raises(SpecError, match=message):
        adapted(*attacks, scores=scores)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("enery", r"attacks\[0\].params.score .*did you mean 'energy'"),
        ("mahalanobis", r"attacks\[0\].params.score .*not among detection.scores.*Add it there"),
        ("pml:gap", "not among detection.scores"),
    ],
)
def test_an_attack_aims_at_a_score_of_the_run(score, message):
    aware = {"name": "adaptive_joint", "params": {"score": score}, "eps": [0.1]}
    with pytest.raises(SpecError, match=message):
        load_spec(changed(attacks=[aware], detection={"scores": ["energy"]}))


def test_the_name_of_a_score_may_be_written_in_any_way():
    aware = {"name": "adaptive_joint", "params": {"score": "Max logit"}, "eps": [0.1]}
    assert load_spec(changed(attacks=[aware])).attacks[0].params == {"score": "max_logit"}
