"""build_loss, the table of losses and the plug-in seam."""

import textwrap

import pytest
import torch

from robustloss.attacks.plugins import PluginError
from robustloss.losses import LOSSES, build_loss, find_loss
from robustloss.losses.base import LossHead, LossTerms, check_logits, check_terms


def build(name, **params):
    return build_loss(name, **{"feature_dim": 4, "num_classes": 3, **params})


def test_built_in_names():
    assert list(LOSSES)[:4] == ["softmax", "center", "gm", "lgm"]
    assert all(type(build(name)) is LOSSES[name] for name in LOSSES)


def test_parameters_reach_the_head():
    head = build("lgm", alpha=0.3, likelihood_weight=0.2, covariance="diagonal")
    assert (head.alpha, head.likelihood_weight) == (0.3, 0.2)
    assert head.log_var.shape == (3, 4)


def test_example_file(pytestconfig):
    name = "losses/example_loss.py:CosineSoftmax"
    head = build(name, folders=[pytestconfig.rootpath / "tests"], scale=3)
    features = torch.eye(4)[:2]
    assert head.scale == 3
    assert head.logits(2.0 * features).equal(head.logits(features))


def test_example_follows_the_formula():
    from tests import oracles

    head = build("tests.losses.example_loss:CosineSoftmax").double()
    features = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = oracles.cosine_logits(features.numpy(), head.weight.detach().numpy(), scale=10.0)
    torch.testing.assert_close(head.logits(features), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lgn", {}, r"loss \(='lgn'\) must be one of softmax, center.* did you mean 'lgm'\?"),
        ("polynomial", {}, r"or a loss of your own as 'package\.module:Class'"),
        ("lgm", {"aplha": 1}, r"lgm\.aplha: unknown parameter; did you mean 'alpha'\? It takes: "),
        ("softmax", {"alpha": 1}, r"softmax\.alpha: unknown parameter\. It takes: bias\."),
        ("lgm", {"alpha": "1"}, r"loss 'lgm': alpha \(='1'\) must be a number\."),
        ("gm", {"feature_dim": 0}, r"loss 'gm': feature_dim \(=0\) must be a whole number of at"),
        ("gm", {"num_classes": 1}, r"num_classes \(=1\) must be a whole number of at least 2"),
        ("gm", {"num_classes": True}, r"num_classes \(=True\) must be a whole number"),
        ("tests.oracles:softmax_logits", {}, r"must be a subclass .*, but it is a function\."),
        ("torch.nn:Linear", {}, r"must be a subclass of .*, but it is a class Linear\."),
        ("tests.losses.broken_losses:ConstructorRaises", {}, r"could not be built: KeyError: 'rad"),
        ("no_such_module:Loss", {}, r"no_such_module"),
    ],
)
def test_refuses(name, params, message):
    with pytest.raises(ValueError, match=message):
        build(name, **params)


def test_a_plugin_that_fails_to_import_is_a_plugin_error(tmp_path):
    (tmp_path / "mine.py").write_text("import not_a_module_of_anyone\n")
    with pytest.raises(PluginError, match="not_a_module_of_anyone"):
        build("mine.py:Mine", folders=[tmp_path])


def test_a_plugin_without_its_methods_is_refused(tmp_path):
    (tmp_path / "half.py").write_text(
        textwrap.dedent(
            """
            from robustloss.losses.base import LossHead

            class Half(LossHead):
                def logits(self, features):
                    return features
            """
        )
    )
    with pytest.raises(ValueError, match=r"loss \(='half.py:Half'\) must define loss\(\)\."):
        find_loss("half.py:Half", [tmp_path])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"batching": "balance"}, r"Odd\.batching \(='balance'\) must be 'shuffled' or 'balanced'"),
        ({"density": "yes"}, r"Odd\.density \(='yes'\) must be True or False"),
    ],
)
def test_wrong_class_attributes_are_refused_at_once(body, message):
    with pytest.raises(TypeError, match=message):
        type("Odd", (LossHead,), body)


def test_check_terms_and_check_logits_name_what_is_wrong():
    features, fine = torch.zeros(5, 2), torch.zeros(5)
    assert check_terms(LossTerms(fine, fine), features) == LossTerms(fine, fine)
    for terms, message in (
        ((fine, fine), r"loss\(\) returned tuple\. Return LossTerms"),
        (
            LossTerms(fine[:4], fine),
            r"loss\(\)\.classification \(shape \(4,\)\) must have",
        ),
        (LossTerms(fine, fine.long()), r"loss\(\)\.regulariser \(=torch\.int64\) must be a float"),
    ):
        with pytest.raises(ValueError, match=message):
            check_terms(terms, features)
    with pytest.raises(ValueError, match=r"logits\(\) \(shape \(5, 2\)\) must have shape \(5, 3\)"):
        check_logits(features, features, num_classes=3)
    with pytest.raises(ValueError, match=r"logits\(\) \(=NoneType\) must be a floating tensor"):
        check_logits(None, features, num_classes=3)


def test_defaults_of_the_seam():
    head = LOSSES["softmax"](3, 2)
    assert head.start(torch.ones(2)) is None
    assert head.after_step(torch.ones(1, 3), torch.zeros(1).long()) is None
    assert head.fit(torch.ones(1, 3), torch.zeros(1).long()) is None
    (group,) = head.parameter_groups(0.3)
    assert group == {"params": list(head.parameters()), "lr": 0.3}
    assert (head.batching, head.density) == ("shuffled", False)


def test_a_pair_loss_has_no_logits_while_training_unless_it_says_so():
    class Own(LOSSES["triplet"]):
        logits_while_training = True

    heads = [
        LOSSES["softmax"](2, 3),
        LOSSES["triplet"](2, 3),
        Own(2, 3),
    ]
    assert [head.logits_while_training for head in heads] == [True, False, True]
