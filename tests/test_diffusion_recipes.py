"""Diffusion models as priors: networks, recipes, the border; and those of somebody else, taken from a folder."""

from __future__ import annotations

import copy
import json
import pickle
import sys

import pytest
import torch
from pydantic import ValidationError
from toys import question, toy, trial

from leakboard.config import ConfigError, Images
from leakboard.config.recipes import Diffusion, Restorer
from leakboard.data import DataError, select
from leakboard.models.diffusion import diffusing
from leakboard.recipes import diffusion, store
from leakboard.recipes.classifier import state_sha
from leakboard.recipes.store import RecipeError
from leakboard.recipes.trained import trained_prior
from leakboard.victim.secrets import victim_slice

diffusers = pytest.importorskip("diffusers")

DIGITS, HELD_OUT = Images(name="digits"), Images(name="digits", split="test")
TINY = {"images": Images(name="digits", count=64), "width": 8, "levels": 1, "epochs": 1}


@pytest.fixture(autouse=True)
def _bare_checkout(tmp_path, monkeypatch):
    for name in ("benchmarks", "baselines"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("shape, levels", [((1, 8, 8), 3), ((1, 28, 28), 3), ((3, 32, 32), 3), ((3, 12, 8), 1)])
def test_networks_take_every_size(shape, levels):
    made = diffusing(shape, 10, 32, levels, torch.Generator().manual_seed(0)).requires_grad_(False)
    assert sum(weight.numel() for weight in made.parameters()) <= 2_000_000
    noisy, t = torch.randn(2, *shape), torch.tensor([0, 999])
    got = made(noisy, t, torch.tensor([0, 9]))
    assert got.shape == noisy.shape
    assert torch.equal(made(noisy, t), made(noisy, t, torch.tensor([10, 10]))), "no class is the last one"
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert torch.equal(twin(noisy, t, torch.tensor([0, 9])), got) and torch.equal(twin.alphas, made.alphas)


def test_a_side_that_cannot_be_halved_is_named():
    with pytest.raises(ValueError, match="images of 28x28 pixels cannot be halved 3 times"):
        diffusing((1, 28, 28), 10, 8, 4, torch.Generator().manual_seed(0))


def test_the_hash_is_of_what_differs_from_the_defaults():
    plain = Diffusion(images=DIGITS)
    assert plain.hash == Diffusion(images=DIGITS, width=32, rate=1e-3, dropped=0.1, folder=None).hash
    ways = [{}, {"images": HELD_OUT}, {"width": 8}, {"levels": 2}, {"dropped": 0.0}, {"seed": 1}, {"epochs": 3}]
    assert len({Diffusion(**{"images": DIGITS, **way}).hash for way in ways}) == len(ways)
    assert plain.said() == {"images": {"name": "digits"}}
    assert plain.hash != Restorer(images=DIGITS, degradation={"noise": 0.1}).hash


def test_the_same_recipe_gives_the_same_bits():
    shas = []
    for _ in range(2):
        torch.rand(3)  # another state of the global generator
        made = diffusion.untrained(Diffusion(**TINY))
        with store.repeatable():
            diffusion.train(made, Diffusion(**TINY), *select(TINY["images"]).take())
        shas.append(state_sha(made.state_dict()))
    assert shas[0] == shas[1] != state_sha(diffusion.untrained(Diffusion(**TINY)).state_dict())


def test_a_training_that_diverges_is_named():
    recipe = Diffusion(**{**TINY, "rate": 1e30, "epochs": 3, "batch": 16})
    with pytest.raises(RecipeError, match=f"diffusion {recipe.hash} of digits train: .* diverged in epoch"):
        diffusion.train(diffusion.untrained(recipe), recipe, *select(recipe.images).take())


def test_it_is_found_again_and_refused_where_it_has_seen_a_victim():
    asked = question()
    victims = victim_slice(asked)
    first, again = (trained_prior(Diffusion(**TINY), asked, victims) for _ in range(2))
    assert first.weights.now and not again.weights.now and not again.model.training
    assert state_sha(first.model.state_dict()) == state_sha(again.model.state_dict())
    with pytest.raises(DataError, match=r"the prior \(diffusion .*\), digits test"):
        trained_prior(Diffusion(**{**TINY, "images": HELD_OUT}), asked, victims)


def test_an_attack_has_it_on_the_other_side_of_the_border(tmp_path):
    methods = """
    def prior(self, benchmark):
        from leakboard.config import Images
        from leakboard.config.recipes import Diffusion
        return Diffusion(images=Images(name="digits", count=64), width=8, levels=1, epochs=1)
    """
    body = """
    from leakboard.attack.diffusion import ddrm
    return Reconstruction(ddrm(seen.prior, torch.full(seen.shape, 0.5), rng, steps=3))
    """
    line = trial(toy(tmp_path, body, methods=methods), question(threat={"knows": ["prior"]})).line
    assert line["status"] == "ok", line.get("reason")


def test_without_diffusers_the_way_to_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ConfigError, match=r"need diffusers, .* pip install 'leakboard\[diffusion\]'"):
        diffusion.untrained(Diffusion(**TINY))


# ---------------------------------------------------------------------------------------------------------------------
# Folders.


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
