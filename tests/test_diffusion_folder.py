"""A diffusion model that somebody else trained: taken from a folder as it is, or refused by what is wrong with it."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from toys import question

from leakboard.config import Images
from leakboard.config.recipes import Diffusion
from leakboard.recipes import diffusion
from leakboard.recipes.store import RecipeError
from leakboard.recipes.trained import trained_prior
from leakboard.victim.secrets import victim_slice

diffusers = pytest.importorskip("diffusers")
DIGITS = Images(name="digits")


@pytest.fixture(autouse=True)
def _bare_checkout(tmp_path, monkeypatch):
    for name in ("benchmarks", "baselines"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


def saved(folder, scheduler=None, **settings):
    """A tiny pipeline of random weights, as diffusers writes it; its network."""
    about = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "num_class_embeds": 11, **settings}
    layers = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = diffusers.UNet2DModel(**about, **layers, layers_per_block=1, norm_num_groups=4, attention_head_dim=8)
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**(scheduler or {}))).save_pretrained(folder)
    return unet.eval()


@pytest.mark.parametrize("classes", [11, None])
def test_what_lies_in_a_folder_is_taken_as_it_is(tmp_path, classes):
    unet = saved(tmp_path / "mine", {"beta_end": 0.01}, num_class_embeds=classes)
    asked, recipe = question(), Diffusion(images=DIGITS, folder="mine")
    got = trained_prior(recipe, asked, victim_slice(asked)).model
    noisy, t = torch.randn(2, 1, 8, 8), torch.tensor([5, 900])
    none = None if classes is None else torch.tensor([10, 10])
    assert torch.allclose(got(noisy, t), unet(noisy, t, none).sample, atol=1e-6) and not got.training
    assert torch.equal(got.alphas, diffusers.DDPMScheduler(beta_end=0.01).alphas_cumprod), "the schedule is its own"
    if classes is None:
        with pytest.raises(ValueError, match="knows no classes"):
            got(noisy, t, torch.tensor([1, 2]))


def test_what_it_holds_is_part_of_the_hash(tmp_path):
    saved(tmp_path / "mine")
    before = Diffusion(images=DIGITS, folder="mine").hash
    assert before == Diffusion(images=DIGITS, folder="mine").hash != Diffusion(images=DIGITS).hash
    saved(tmp_path / "mine")  # other random weights
    assert Diffusion(images=DIGITS, folder="mine").hash != before


def test_keys_of_a_training_do_not_go_with_it():
    with pytest.raises(ValidationError, match="`folder` is taken as it is: epochs, width go with a training"):
        Diffusion(images=DIGITS, folder="mine", epochs=3, width=8)


@pytest.mark.parametrize(
    "settings, scheduler, message",
    [
        ({"sample_size": 16}, {}, r"images: found \(1, 16, 16\), expected \(1, 8, 8\)"),
        ({"in_channels": 3, "out_channels": 3}, {}, r"images: found \(3, 8, 8\)"),
        ({"out_channels": 2}, {}, "channels of what it predicts: found 2, expected 1"),
        ({"num_class_embeds": 10}, {}, "classes, one of them none: found 10, expected 11"),
        ({}, {"prediction_type": "v_prediction"}, "what it predicts: found v_prediction, expected epsilon"),
        ({}, {"rescale_betas_zero_snr": True}, "nothing is left of an image at the last time"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, settings, scheduler, message):
    saved(tmp_path / "mine", scheduler, **settings)
    with pytest.raises(RecipeError, match=message):
        diffusion.untrained(Diffusion(images=DIGITS, folder="mine"))


def cut(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def another_width(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "block_out_channels": [16]}))


def fewer_weights(folder):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "layers_per_block": 2}))


@pytest.mark.parametrize(
    "damage, message",
    [
        (cut, "no diffusion model that diffusers can read"),
        (another_width, "no diffusion model that diffusers can read|the weights do not fit the network"),
        (fewer_weights, "the weights do not fit the network"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{"), "no diffusion model that diffusers"),
        (lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "no diffusion model"),
        (lambda folder: (folder / "scheduler").rename(folder / "away"), "no folder scheduler/"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, damage, message):
    saved(tmp_path / "mine")
    damage(tmp_path / "mine")
    with pytest.raises(RecipeError, match=message) as caught:
        diffusion.untrained(Diffusion(images=DIGITS, folder="mine"))
    assert str(tmp_path / "mine") in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no folder unet/, expected what the `save_pretrained` of a pipeline writes"):
        diffusion.untrained(Diffusion(images=DIGITS, folder="nowhere"))
