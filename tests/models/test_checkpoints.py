"""Files of weights as people have them: wrapped, prefixed, of a trainer; and what does not fit."""

import argparse
import tarfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from robustloss.models.weight_files import load_file


def network(width=6):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3)
    )


def trained():
    torch.manual_seed(1)
    return network().state_dict()


def prefixed(prefix, state=None):
    return {prefix + key: value for key, value in (state or trained()).items()}


def lightning():
    """What a LightningModule leaves: its metrics and its criterion stand beside the network."""
    state = {**prefixed("model."), "criterion.weight": torch.ones(3)}
    parts = {"epoch": 3, "pytorch-lightning_version": "2.5", "hyper_parameters": {"lr": 0.1}}
    return {**parts, "state_dict": state, "optimizer_states": [{"state": {}}]}


def of_trainer():
    settings = argparse.Namespace(arch="resnet", lr=0.1)
    return {"args": settings, "best_acc": np.float64(0.9), "epoch": 3, "state_dict": trained()}


KINDS = {
    "a plain state dict": trained,
    **{f"under {key!r}": lambda key=key: {key: trained(), "epoch": 3}
       for key in ("state_dict", "model_state_dict", "model", "net", "ema")},
    **{f"prefix {prefix!r}": lambda prefix=prefix: prefixed(prefix)
       for prefix in ("module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.",
                      "model.module.")},
    "an averaged model": lambda: {"n_averaged": torch.tensor(3), **prefixed("module.")},
    "a compiled layer": lambda: {
        key.replace("1.", "1._orig_mod."): value for key, value in trained().items()
    },
    "Lightning": lightning,
    "settings and numbers of numpy": of_trainer,
    "before counts of batches": lambda: {
        key: value for key, value in trained().items() if not key.endswith("num_batches_tracked")
    },
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".pth.tar"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_weights_that_were_saved(tmp_path, kind, suffix):
    torch.save(KINDS[kind](), tmp_path / f"w{suffix}")
    module = network()
    remarks = load_file(module, tmp_path / f"w{suffix}")
    for name, value in trained().items():
        assert torch.equal(module.state_dict()[name], value)
    left = {"an averaged model": "n_averaged", "Lightning": "criterion.weight"}.get(kind)
    assert remarks == (
        [f"of w{suffix} {left} are left out: they belong to no layer"] if left else []
    )


def test_prefixes_in_safetensors(tmp_path):
    safetensors.torch.save_file(prefixed("module."), tmp_path / "w.safetensors")
    module = network()
    assert load_file(module, tmp_path / "w.safetensors") == []
    assert torch.equal(module[3].weight, trained()["3.weight"])


def test_of_several_the_likeliest_is_taken_and_said(tmp_path):
    other = {key: value + 1 for key, value in trained().items()}
    torch.save({"ema": other, "model": trained()}, tmp_path / "w.pt")
    module = network()
    assert load_file(module, tmp_path / "w.pt") == [
        "of w.pt the weights of 'model' are taken, not of 'ema'"
    ]
    assert torch.equal(module[3].weight, trained()["3.weight"])


def test_a_network_whose_own_names_begin_like_a_wrapper_keeps_them(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = network()

    torch.save(Own().state_dict(), tmp_path / "w.pt")
    assert load_file(Own(), tmp_path / "w.pt") == []
    torch.save(trained(), tmp_path / "w.pt")
    message = r"it lacks model\.1\.weight.* nearest to 1.weight is model"
    with pytest.raises(ValueError, match=message):
        load_file(Own(), tmp_path / "w.pt")


class Whole(nn.Linear):
    """Pickled as a whole it names this class, which unpickling would import."""


def test_a_pickled_module_is_not_loaded_and_told_the_remedy(tmp_path):
    torch.save(Whole(2, 2), tmp_path / "w.pt")
    message = r"it has .*Whole, and reading that runs code.*weights_only=False"
    with pytest.raises(ValueError, match=message):
        load_file(network(), tmp_path / "w.pt")


WRONG = {
    "other names": (prefixed("layer"), r"it lacks 1\.weight.*nearest to layer1.weight is 1.weight"),
    "other sizes": (network(5).state_dict(), r"1.weight is \(5, 4\) in the file and \(6, 4\) here"),
    "one too many": ({**trained(), "4.weight": torch.ones(2)}, "nothing here is called 4.weight"),
    "too few": ({"1.weight": trained()["1.weight"]}, r"it lacks 1.bias, 2.weight, 2.bias and 4 m"),
    "nothing": ({}, "it lacks 1.weight"),
    "a number": (3, "must hold a state dict"),
    "no state": ({"epoch": 3}, "must hold a state dict: names and tensors. It has 'epoch'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_does_not_fit_is_told_shortly(tmp_path, kind):
    state, message = WRONG[kind]
    torch.save(state, tmp_path / "w.pt")
    module = network()
    before = module[3].weight.detach().clone()
    with pytest.raises(ValueError, match=message) as error:
        load_file(module, tmp_path / "w.pt")
    assert len(str(error.value)) < 400
    assert torch.equal(module[3].weight, before)


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_told(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights \(=w.pth\) "):
        load_file(network(), tmp_path / "w.pth")


@pytest.mark.parametrize("content", [None, bytes(10_240)])  # zeros are an archive of nothing
def test_an_archive_of_tar_is_refused_before_torch_makes_a_folder_for_it(
    tmp_path, content, monkeypatch
):
    path = tmp_path / "w.pth"
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "storages")
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(ValueError, match=r"weights \(=w.pth\) is a tar archive"):
        load_file(network(), path)
