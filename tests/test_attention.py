"""Gradient matching through attention: its fused kernels have no second derivative, so no step takes them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from test_mathematics import TINY, tiny_seen
from torch import Tensor, nn
from toys import ROOT, question, trial

from leakboard.attack import local_steps, step
from leakboard.attack.matching import Matching, cosine_distance, squared_distance
from leakboard.attack.step import twice_differentiable
from leakboard.models import build
from leakboard.rng import generator, seeded
from leakboard.threat import Gradient, LocalTraining, ModelUpdate

SHAPE = (1, 8, 8)
TRANSFORMER = """
import torch
from torch import nn


class Transformer(nn.Module):
    def __init__(self, shape, classes, width):
        super().__init__()
        channels, height, breadth = shape
        self.patches = nn.Conv2d(channels, width, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + (height // 2) * (breadth // 2), width))
        one = {"batch_first": True, "norm_first": True, "activation": "gelu"}
        self.layers = nn.Sequential(*(nn.TransformerEncoderLayer(width, 2, 2 * width, **one) for _ in range(2)))
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.layers(x)[:, 0])


def network(shape, classes, width=16):
    return Transformer(shape, classes, width)
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "transformer.py"
    path.write_text(TRANSFORMER)
    return path


def problem(file: Path, number: int, execution: str = "loop") -> Gradient:
    """The gradient of two random images, in float64."""
    with seeded("transformer", number):
        model = build(file, SHAPE, 4).double().eval()
        images, loss = torch.rand(2, *SHAPE, dtype=torch.float64), nn.CrossEntropyLoss()
    gradient = torch.autograd.grad(loss(model(images), torch.tensor([1, 3])), list(model.parameters()))
    shape = (2, *SHAPE)
    return Gradient(model=model, loss=loss, shape=shape, classes=4, gradient=gradient, execution=execution)


def start(count: int) -> Tensor:
    return torch.rand(count, 2, *SHAPE, generator=generator("start"), dtype=torch.float64).requires_grad_()


def agrees_with_finite_differences(matching: Matching, images: Tensor, labels: Tensor) -> None:
    _, (slope,) = matching(images, labels, [images])
    assert float(slope.norm()) > 0
    for place in ((0, 0, 1, 1), (1, 0, 4, 2), (1, 0, 7, 7)):
        sides = []
        for length in (1e-5, -1e-5):
            moved = images.detach().clone()
            moved[place] += length
            sides.append(matching(moved.requires_grad_(), labels, [moved])[0])
        torch.testing.assert_close(slope[place], (sides[0] - sides[1]) / 2e-5, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("cost", [squared_distance, cosine_distance])
def test_image_gradient_agrees_with_finite_differences(file, cost):
    images = start(1)[0].detach().requires_grad_()
    agrees_with_finite_differences(Matching(problem(file, 0), cost, "float64"), images, torch.tensor([0, 2]))


def test_so_does_that_of_local_steps(file):
    seen, local = problem(file, 0), LocalTraining(learning_rate=0.1, steps=3, batch=1, momentum=0.5)
    change = tuple(-0.3 * g for g in seen.gradient)
    update = ModelUpdate(model=seen.model, loss=seen.loss, shape=seen.shape, classes=4, update=change, local=local)
    images = start(1)[0].detach().requires_grad_()
    agrees_with_finite_differences(Matching(update, cosine_distance, "float64"), images, torch.tensor([0, 2]))


@pytest.mark.parametrize("execution", ["stacked", "compiled"])
def test_every_execution_is_the_loop(file, execution):
    found = []
    for how in ("loop", execution):
        matching, images = Matching([problem(file, n, how) for n in range(3)], cosine_distance, "float64"), start(3)
        found.append(matching(images, torch.tensor([[0, 2]] * 3), [images]))
    (cost, (slope,)), (plain, (wanted,)) = found
    torch.testing.assert_close(cost, plain, rtol=1e-10, atol=0)
    torch.testing.assert_close(slope, wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max()))


def test_stacked_weights_do_not_take_the_fast_path(file, monkeypatch):
    """To it they look as if nothing was to be differentiated."""
    model = build(file, SHAPE, 4).eval()
    names = [name for name, _ in model.named_parameters()]
    weights = [torch.stack([p.detach()] * 3).requires_grad_() for p in model.parameters()]

    def forward(weights: list[Tensor], images: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (images,))

    def refuse(*_: object) -> None:
        raise AssertionError("the fast path")

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", refuse)
    with pytest.raises(AssertionError, match="fast path"):
        torch.func.vmap(forward)(weights, torch.rand(3, 2, *SHAPE))
    with twice_differentiable():
        assert torch.func.vmap(forward)(weights, torch.rand(3, 2, *SHAPE)).shape == (3, 2, 4)


def test_settings_outside_of_a_step_stay_as_they_are():
    def settings() -> tuple[bool, ...]:
        cuda = torch.backends.cuda
        return cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()

    before = settings()
    with pytest.raises(KeyError), twice_differentiable():
        assert settings() == (False, False, False)
        raise KeyError
    assert settings() == before == (True, True, True)


@pytest.mark.parametrize("execution", ["loop", "stacked"])
@pytest.mark.parametrize("name", ["lenet_sigmoid", "convnet", "resnet20", "fc2"])
def test_other_networks_keep_their_bits(name, execution, monkeypatch):
    found = []
    for around in (twice_differentiable, contextlib.nullcontext):
        monkeypatch.setattr(step, "twice_differentiable", around)
        monkeypatch.setattr(local_steps, "twice_differentiable", around)
        seen = tiny_seen(name, torch.float32)
        seen.execution = execution
        images = torch.rand(2, *TINY[name][0], generator=generator("bits")).requires_grad_()
        cost, (slope,) = Matching(seen, cosine_distance)(images, torch.tensor([0, 2]), [images])
        found.append((cost, slope))
    assert all(torch.equal(mine, plain) for mine, plain in zip(*found, strict=True))


def test_a_transformer_is_attacked_end_to_end(file):
    """Inverting Gradients on one digit, by the benchmark's `network: {file: ...}`: what it minimises falls."""
    asked = question(threat={"knows": ["labels"]}, network={"file": str(file)}, budget=64)
    outcome = trial(ROOT / "baselines" / "ig" / "attack.py", asked)
    assert outcome.line["status"] == "ok", outcome.line["reason"]
    losses = [row["loss"] for row in outcome.curve]
    assert losses[-1] < 0.1 * losses[0]
