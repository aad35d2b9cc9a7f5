"""Every defence against its definition, and against an implementation that is not ours where there is one."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from test_defences import asked, leaked
from torch import nn
from toys import ROOT, observed, toy, trial

from leakboard.config import ConfigError
from leakboard.rng import generator, seeded
from leakboard.victim.defences import local_steps, messages
from leakboard.victim.defences.forms import Bottleneck, precode
from leakboard.victim.leak import gradient
from leakboard.victim.secrets import Secret

LOSS = nn.CrossEntropyLoss()


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def message(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = generator("message", seed)
    return {"weight": torch.randn(7, 5, generator=rng), "bias": 3 * torch.randn(7, generator=rng)}


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def network(seed: int = 0) -> nn.Module:
    with seeded("network", seed):
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(3 * 36, 16), nn.ReLU(), nn.Linear(16, 10)
        )


def batch(count: int = 5) -> Secret:
    rng = generator("batch")
    return Secret(torch.rand(count, 1, 8, 8, generator=rng), torch.randint(10, (count,), generator=rng))


@pytest.mark.parametrize("norm", [0.01, 1.0, 1e6])
def test_clipping_keeps_the_direction_and_bounds_the_length(norm):
    before = message()
    after = messages.clipping(before, torch.Generator(), norm=norm)
    wanted = before if flat(before).norm() <= norm else {k: v * norm / flat(before).norm() for k, v in before.items()}
    torch.testing.assert_close(flat(after), flat(wanted))
    layers = messages.layer_clipping(before, torch.Generator(), norm=norm)
    for key, tensor in before.items():
        torch.testing.assert_close(layers[key], tensor * min(1.0, norm / float(tensor.norm())))


def test_clipping_of_nothing_is_nothing():
    nothing = {"weight": torch.zeros(3)}
    for clip in (messages.clipping, messages.layer_clipping):
        assert torch.equal(clip(nothing, torch.Generator(), norm=1.0)["weight"], torch.zeros(3))


@pytest.mark.parametrize("deviation", [0.01, 2.0])
def test_laplacian_noise_has_its_deviation_and_its_tails(deviation):
    """Of mean 0, this deviation, and a mean magnitude of deviation / sqrt 2: a Gaussian's is larger. Five standard
    errors each; the variance of a squared Laplacian of variance 1 is 5, of its magnitude 1/2.
    """
    size = 200_000
    noise = (
        messages.laplacian_noise({"x": torch.zeros(size)}, generator("laplace"), deviation=deviation)["x"] / deviation
    )
    assert abs(float(noise.mean())) < 5 / math.sqrt(size)
    assert float(noise.square().mean()) == pytest.approx(1, abs=5 * math.sqrt(5 / size))
    assert float(noise.abs().mean()) == pytest.approx(1 / math.sqrt(2), abs=5 * math.sqrt(0.5 / size))
    still = messages.laplacian_noise(message(), generator("laplace"), deviation=0)
    assert torch.equal(flat(still), flat(message()))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_pruning_takes_the_smallest_of_every_tensor(share):
    before = message()
    after = messages.pruning(before, torch.Generator(), share=share)
    for key, tensor in before.items():
        gone = after[key] == 0
        assert int(gone.sum()) == round(share * tensor.numel())
        assert torch.equal(after[key][~gone], tensor[~gone]), "what is kept keeps its bits"
        if gone.any() and not gone.all():
            assert tensor[gone].abs().max() <= tensor[~gone].abs().min()


def test_half_precision_is_that_of_the_standard():
    numpy = pytest.importorskip("numpy")
    sent = messages.half_precision(message(), torch.Generator())
    for key, tensor in message().items():
        assert torch.equal(sent[key], torch.from_numpy(tensor.numpy().astype(numpy.float16).astype(numpy.float32)))


def test_quantisation_is_torchs_own_symmetric_one():
    for key, tensor in message().items():
        step = float(tensor.abs().max() / 127)
        theirs = torch.quantize_per_tensor(tensor, step, 0, torch.qint8).dequantize()
        ours = messages.quantisation({key: tensor}, torch.Generator(), bits=8)[key]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    coarse = messages.quantisation(message(), torch.Generator(), bits=2)["weight"]
    assert len(coarse.unique()) == 3
    assert torch.equal(messages.quantisation({"x": torch.zeros(4)}, torch.Generator(), bits=8)["x"], torch.zeros(4))


@pytest.mark.parametrize(
    ("name", "setting"), [("pruning", {"share": 1.5}), ("quantisation", {"bits": 1}), ("quantisation", {"bits": 2.5})]
)
def test_a_setting_out_of_range_is_named(name, setting):
    with pytest.raises(ValueError, match=rf"{name}\.{next(iter(setting))}"):
        getattr(messages, name)(message(), torch.Generator(), **setting)


# ---------------------------------------------------------------------------------------------------------------------
# A step of local training.


def by_example(model: nn.Module, data: Secret, norm: float) -> list[torch.Tensor]:
    """Clipped gradients of one example after the other, and their mean."""
    total = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for image, label in zip(data.images, data.labels, strict=True):
        slopes = gradient(model, LOSS, Secret(image[None], label[None]))
        length = torch.stack([slope.square().sum() for slope in slopes]).sum().sqrt()
        total = [sum_ + slope * min(1.0, norm / float(length)) for sum_, slope in zip(total, slopes, strict=True)]
    return [part / len(data.images) for part in total]


@pytest.mark.parametrize("norm", [0.05, 0.5, 1e6])
def test_dp_sgd_clips_every_example(norm):
    model, data = network(), batch()
    ours = local_steps.dp_sgd(model, LOSS, data.images, data.labels, torch.Generator(), norm=norm, multiplier=0)
    for got, wanted in zip(ours, by_example(model, data, norm), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", [0.05, 1e6])
def test_dp_sgd_clips_as_opacus_does(norm):
    opacus = pytest.importorskip("opacus")
    model, data = network(), batch()
    ours = local_steps.dp_sgd(model, LOSS, data.images, data.labels, torch.Generator(), norm=norm, multiplier=0)
    theirs = opacus.GradSampleModule(copy.deepcopy(model))
    sgd = torch.optim.SGD(theirs.parameters(), 1.0)
    private = opacus.optimizers.DPOptimizer(
        sgd, noise_multiplier=0.0, max_grad_norm=norm, expected_batch_size=len(data.images)
    )
    LOSS(theirs(data.images), data.labels).backward()
    private.pre_step()
    for got, parameter in zip(ours, theirs.parameters(), strict=True):
        torch.testing.assert_close(got, parameter.grad, rtol=1e-4, atol=1e-6)


def test_dp_sgds_noise_is_on_the_sum():
    """Deviation multiplier x norm / B on the mean, within five standard errors."""
    model, data = network(), batch(4)
    plain = local_steps.dp_sgd(model, LOSS, data.images, data.labels, torch.Generator(), norm=0.5, multiplier=0)
    noisy = local_steps.dp_sgd(model, LOSS, data.images, data.labels, generator("noise"), norm=0.5, multiplier=3.0)
    noise = torch.cat([(a - b).flatten() for a, b in zip(noisy, plain, strict=True)])
    assert float(noise.std()) == pytest.approx(3.0 * 0.5 / 4, rel=5 / math.sqrt(2 * len(noise)))


def test_dp_sgd_refuses_a_network_in_which_examples_meet():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10)).train()
    with pytest.raises(ValueError, match="batch norm"):
        local_steps.dp_sgd(model, LOSS, batch().images, batch().labels, torch.Generator(), norm=1.0, multiplier=0)
    local_steps.dp_sgd(model.eval(), LOSS, batch().images, batch().labels, torch.Generator(), norm=1.0, multiplier=0)


def test_exposure_of_a_linear_representation():
    """r = W x: |r_i| / |W_i| per image, means over the batch."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 80, bias=False), nn.Linear(80, 10))
    images = batch().images
    got = local_steps.exposure(model, model[2], images)
    rows = model[1].weight
    wanted = ((images.flatten(1) @ rows.T).abs() / rows.norm(dim=1)).mean(0)
    torch.testing.assert_close(got, wanted.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_soteria_hides_the_features_that_give_most_away(share):
    model, data = network(), batch()
    plain = gradient(model, LOSS, data)
    got = local_steps.soteria(model, LOSS, data.images, data.labels, torch.Generator(), share=share)
    last = model[-1]
    exposed = local_steps.exposure(model, last, data.images)
    hidden = exposed.argsort(descending=True, stable=True)[: round(share * 16)]
    for parameter, before, after in zip(model.parameters(), plain, got, strict=True):
        if parameter is last.weight:
            before = before.index_fill(1, hidden, 0)
        torch.testing.assert_close(after, before)


def test_features_at_rest_give_nothing_away():
    model = network()
    with torch.no_grad():
        model[3].bias.fill_(-100)
    assert torch.equal(local_steps.exposure(model, model[-1], batch().images), torch.zeros(16))


# ---------------------------------------------------------------------------------------------------------------------
# What a server sees of several clients, and the form of a network.


@pytest.mark.parametrize("clients", [2, 4])
def test_secure_aggregation_of_one_step_is_the_update_of_the_whole_batch(clients):
    """Every client takes one step on its share; the weighted mean is that of one client with all images."""
    spec = {"clients": clients, "learning_rate": 0.05}
    alone = leaked(asked("update", batch=4, federation=spec))
    hidden = leaked(asked("update", {"secure_aggregation": {}}, batch=4, federation=spec))
    for got, wanted in zip(hidden, alone, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("clients", [2, 4])
def test_a_sum_of_gradients_behaves_like_a_batch_as_many_times_as_large(clients):
    """What is seen of N clients with an image each is what is seen of one with N images; noise of each is averaged."""
    spec = {"clients": clients, "learning_rate": 0.05}
    summed = asked("gradient", {"secure_aggregation": {}}, batch=clients, federation=spec)
    for got, wanted in zip(leaked(summed), leaked(asked("gradient", batch=clients)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)
    noisy = summed.model_copy(update={"defence": {**summed.defence, "gaussian_noise": {"deviation": 1.0}}})
    apart = torch.cat([(a - b).flatten() for a, b in zip(leaked(noisy), leaked(summed), strict=True)])
    assert float(apart.std()) == pytest.approx(1 / math.sqrt(clients), rel=5 / math.sqrt(2 * len(apart)))


def test_a_sum_of_gradients_needs_clients():
    with pytest.raises(ConfigError, match="needs `federation`"):
        leaked(asked("gradient", {"secure_aggregation": {}}))


def test_precodes_draws_have_the_deviation_that_is_encoded():
    """With an encoder that says so and a decoder that lets through: 2 and softplus(1), within five standard errors."""
    bottleneck, size = Bottleneck(1, 50_000), 50_000
    with torch.no_grad():
        bottleneck.encode.weight.zero_()
        bottleneck.encode.bias.copy_(torch.cat([torch.full((size,), 2.0), torch.full((size,), 6.0)]))
        bottleneck.decode = nn.Identity()
        first, second = bottleneck(torch.zeros(1, 1)), bottleneck(torch.zeros(1, 1))
    deviation = math.log1p(math.e)
    assert float(first.mean()) == pytest.approx(2, abs=5 * deviation / math.sqrt(size))
    assert float(first.std()) == pytest.approx(deviation, rel=5 / math.sqrt(2 * size))
    assert not torch.equal(first, second), "every pass draws anew"


def test_precodes_gradient_may_be_differentiated():
    """Along a direction, against a central difference in float64; every pass draws the same here."""
    model, data = precode(network(), generator("precode"), width=6).double(), batch(2)
    images = data.images.double()

    def length(x: torch.Tensor) -> torch.Tensor:
        for module in model.modules():
            if isinstance(module, Bottleneck):
                module.passes = 0
        slopes = torch.autograd.grad(LOSS(model(x), data.labels), list(model.parameters()), create_graph=True)
        return torch.stack([slope.square().sum() for slope in slopes]).sum()

    x = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(length(x), [x])
    way = torch.randn(images.shape, generator=generator("way"), dtype=torch.float64)
    numeric = (length(images + 1e-5 * way) - length(images - 1e-5 * way)) / 2e-5
    assert float((slope * way).sum()) == pytest.approx(float(numeric.detach()), rel=1e-5)


def test_an_attackers_copy_of_precode_does_not_draw_what_the_victim_drew(tmp_path):
    """Even where it starts from as many passes, and it may pass images through without touching global randomness."""
    benchmark = asked("gradient", {"precode": {"width": 8}})
    hidden, _, seen = observed(benchmark)
    assert [module.passes for module in seen.model.modules() if isinstance(module, Bottleneck)] == [0]
    again = gradient(seen.model, seen.loss, hidden)
    assert not all(torch.allclose(a, b) for a, b in zip(again, seen.gradient, strict=True))
    body = "seen.model(torch.rand(seen.shape, generator=rng))\nreturn Reconstruction(torch.zeros(seen.shape))"
    line = trial(toy(tmp_path, body), benchmark).line
    assert line["status"] == "ok", line["reason"]


def test_precode_needs_a_place_in_front_of_the_last_layer():
    with pytest.raises(ValueError, match="one linear layer"):
        precode(nn.Linear(3, 2), torch.Generator())
