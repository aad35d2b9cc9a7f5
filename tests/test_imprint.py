"""What an imprint block and trap weights write into a gradient, read back against what went in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import ROOT, question

from leakboard.attack import contract
from leakboard.attack.imprint import measurement, read
from leakboard.models import Normalise, build
from leakboard.rng import seeded
from leakboard.threat import Gradient, LocalTraining, ModelUpdate, Public

RTF = contract.load(ROOT / "baselines" / "rtf" / "attack.py")
CAH = contract.load(ROOT / "baselines" / "cah" / "attack.py")
SHAPE = (6, 3, 8, 8)


def pixels(count: int, seed: int) -> torch.Tensor:
    """Images of 8 bits, whose means differ."""
    rng = torch.Generator().manual_seed(seed)
    level = torch.rand(count, 1, 1, 1, generator=rng)
    return ((level * torch.rand(count, *SHAPE[1:], generator=rng)) * 255).round() / 255


def sent_out(settings: dict, kind=RTF, name: str = "cnn"):
    """(attack, observation, truth) of a batch whose images fall into bins of their own."""
    attack = contract.configure(kind, settings)
    public = Public(pixels(500, 1), torch.zeros(500, dtype=torch.long))
    with seeded("network", 3, 0):
        network = build(name, SHAPE[1:], 10, 16)
    model = contract.craft(attack, network, public, torch.Generator().manual_seed(4))
    images, labels = pixels(6, 2), torch.arange(6)
    gradient = torch.autograd.grad(nn.CrossEntropyLoss()(model(images), labels), list(model.parameters()))
    seen = Gradient(model=model, loss=nn.CrossEntropyLoss(), shape=SHAPE, classes=10, gradient=gradient)
    return attack, seen, images


@pytest.mark.parametrize("connection", ["linear", "add", "cat", "softmax"])
@pytest.mark.parametrize("block", ["cumulative", "sparse"])
@pytest.mark.parametrize("measure", ["mean", "dct", "random"])
def test_lonely_images_come_back_exactly(connection, block, measure):
    """An image alone in its bin is read off to rounding; one that shares its bin is not among them."""
    settings = {"bins": 64, "connection": connection, "block": block, "measure": measure, "mode": 3}
    attack, seen, images = sent_out(settings)
    row = seen.model.first.weight[0] / attack.gain
    edges = -seen.model.first.bias / attack.gain
    bins = torch.bucketize(images.flatten(1) @ row, edges.detach(), right=True)
    lonely = torch.tensor([int((bins == number).sum()) == 1 for number in bins])
    assert int(lonely.sum()) > 0
    got = attack.reconstruct(seen, torch.Generator()).images
    error = (images[:, None] - got[None]).abs().flatten(2).amax(2).amin(1)
    assert (error[lonely] < 1e-3).all(), f"{error[lonely]}"
    assert (error[~lonely] > 1e-3).all()


@pytest.mark.parametrize("edges", ["public", "normal", "laplace"])
def test_bins_hold_equal_mass_of_public_images(edges):
    attack = contract.configure(RTF, {"bins": 10, "edges": edges})
    values = torch.randn(20000, generator=torch.Generator().manual_seed(1))
    bounds = attack._edges(values)
    assert (bounds.diff() > 0).all() and bounds[0] < values.min()
    shares = torch.bucketize(values, bounds, right=True).bincount(minlength=11)[1:] / 20000
    if edges != "laplace":  # the values are normal
        torch.testing.assert_close(shares, torch.full((10,), 0.1), atol=0.01, rtol=0)


def test_one_shot_bins_are_the_middle_of_many():
    values = torch.rand(50000, generator=torch.Generator().manual_seed(1))
    bounds = contract.configure(RTF, {"bins": 4, "one_shot": 100})._edges(values)
    torch.testing.assert_close(bounds, torch.tensor([0.48, 0.49, 0.50, 0.51]), atol=0.01, rtol=0)


def test_a_mode_of_the_cosine_transform():
    scipy_fft = pytest.importorskip("scipy.fft")
    x = torch.rand(48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours = measurement("dct", 48, 5, torch.Generator()).double() @ x
    assert float(ours) == pytest.approx(scipy_fft.dct(x.numpy(), type=2)[5] / 2 / 48, abs=1e-6)


def test_mixtures_come_last_and_nothing_comes_from_rows_at_rest():
    images = pixels(3, 5).flatten(1)
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    rows, biases = weights @ images, weights.sum(1)
    got = read(rows, biases, 1e-5)
    assert len(got) == 3
    torch.testing.assert_close(got[2], (images[0] + images[1]) / 2, atol=1e-5, rtol=0)
    assert not len(read(torch.zeros(4, 5), torch.zeros(4), 1e-5))


def test_a_layer_that_is_not_moved_hands_in_no_image():
    attack, seen, _ = sent_out({"bins": 16})
    still = tuple(torch.zeros_like(part) for part in seen.gradient)
    silent = Gradient(model=seen.model, loss=seen.loss, shape=SHAPE, classes=10, gradient=still)
    assert attack.reconstruct(silent, torch.Generator()).images.shape == (0, *SHAPE[1:])


def test_half_of_a_trap_row_is_negative_and_mirrored():
    _, seen, _ = sent_out({"scale": 0.8}, CAH, "mlp")
    weight = seen.model[1].weight.detach()
    assert ((weight < 0).sum(1) == weight.shape[1] // 2).all()
    negative, positive = weight.clamp_max(0).sum(1), weight.clamp_min(0).sum(1)
    torch.testing.assert_close(positive, -0.8 * negative)


def test_trap_weights_catch_more_than_plain_ones():
    shares = []
    for trap in (True, False):
        attack, seen, images = sent_out({"trap": trap}, CAH, "mlp")
        got = attack.reconstruct(seen, torch.Generator()).images
        assert len(got) <= len(images)
        error = (images[:, None] - got[None]).abs().flatten(2).amax(2)
        shares.append(float((error.amin(1) < 1e-3).float().mean()) if len(got) else 0.0)
    assert shares[0] > shares[1]


def test_trap_weights_need_a_linear_first_layer():
    with pytest.raises(ValueError, match="Conv2d"):
        sent_out({}, CAH, "cnn")


def test_trap_weights_behind_a_normalisation_catch_the_same_images():
    """The layer sees (x - mean) / std; what is handed in are pixels."""
    attack = contract.configure(CAH, {})
    images, labels = pixels(6, 2), torch.arange(6)
    found = []
    for normalised in (False, True):
        with seeded("network", 3, 0):
            network = build("mlp", SHAPE[1:], 10, 200)
        model = contract.craft(attack, network, None, torch.Generator().manual_seed(4))
        first = next(module for module in model.modules() if isinstance(module, nn.Linear))
        if normalised:  # the same units open: the layer undoes what lies before it
            mean, std = torch.tensor([0.2, 0.5, 0.4]), torch.tensor([0.5, 0.25, 0.3])
            with torch.no_grad():
                spread = std.repeat_interleave(64)
                first.bias.add_(first.weight @ mean.repeat_interleave(64))
                first.weight.mul_(spread)
            model = nn.Sequential(Normalise(tuple(mean.tolist()), tuple(std.tolist())), model)
        gradient = torch.autograd.grad(nn.CrossEntropyLoss()(model(images), labels), list(model.parameters()))
        seen = Gradient(model=model, loss=nn.CrossEntropyLoss(), shape=SHAPE, classes=10, gradient=gradient)
        got = attack.reconstruct(seen, torch.Generator()).images
        found.append((images[:, None] - got[None]).abs().flatten(2).amax(2).amin(1) < 1e-3)
    assert found[0].any() and torch.equal(found[0], found[1])


@pytest.mark.parametrize(
    ("kind", "settings", "skips"), [(RTF, {}, True), (CAH, {}, True), (CAH, {"trap": False}, False)]
)
def test_what_a_malicious_server_plants_is_not_on_an_honest_board(kind, settings, skips):
    attack = contract.configure(kind, settings)
    for conduct in ("honest", "malicious"):
        asked = question(threat={"conduct": conduct})
        assert (attack.skips(asked) is not None) == (skips and conduct == "honest")


@pytest.mark.parametrize("paper", ["cah", "idlg", "labels", "rtf"])
def test_one_plain_local_step_is_read_as_its_gradient(paper):
    """A model update of one step of SGD is the gradient times the rate: what is handed in is the same."""
    attack = contract.configure(contract.load(ROOT / "baselines" / paper / "attack.py"), {})
    with seeded("network", 3, 0):
        network = build("mlp", (1, 8, 8), 10, 32)
    public = Public(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(5)), torch.zeros(64).long())
    crafts = hasattr(attack, "craft")
    model = contract.craft(attack, network, public, torch.Generator().manual_seed(4)) if crafts else network
    images, labels = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(6)), torch.tensor([3])
    gradient = torch.autograd.grad(nn.CrossEntropyLoss()(model(images), labels), list(model.parameters()))
    shared = {"model": model, "loss": nn.CrossEntropyLoss(), "shape": (1, 1, 8, 8), "classes": 10, "budget": 6}
    local = LocalTraining(0.5, 1)
    both = [
        Gradient(**shared, public=public, gradient=gradient),
        ModelUpdate(**shared, public=public, update=tuple(-0.5 * g for g in gradient), local=local),
    ]
    first, second = (attack.reconstruct(seen, torch.Generator().manual_seed(7)) for seen in both)
    assert first.labels is None or torch.equal(first.labels, second.labels)
    torch.testing.assert_close(first.images, second.images, rtol=1e-3, atol=1e-3)
