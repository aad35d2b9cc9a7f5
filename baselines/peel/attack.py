"""Cascading Gradient Inversion (Shariati and Alambardar Meybodi 2026): what a layer spells out is peeled off it."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from leakboard.attack.first_layer import (
    biases_by_images,
    biases_by_law,
    first_linear,
    pixels_of,
    robust_soliton,
    trap_weights,
)
from leakboard.attack.imprint import gradient_of, of_8_bits
from leakboard.threat import Gradient, Public, Reconstruction


class Left(NamedTuple):
    """What of the first layer's gradient nobody has accounted for: weight (N, D) and bias (N,)."""

    weight: Tensor
    bias: Tensor


class Candidates(NamedTuple):
    """Images (K, C, H, W) that rows spell out. rows (K, N), bool: which ones, the paper's S; head (K,): the loudest."""

    images: Tensor
    rows: Tensor
    head: Tensor

    def those(self, which: Tensor) -> "Candidates":
        return Candidates(*(part[which] for part in self))


@dataclass(frozen=True)
class Peeling:
    """Candidates, certificates, subtraction, until nothing new is certified. All that is handed in is certified.

    server: what the first layer is: weights of N(0, deviation^2) and no more (passive); trap weights, mirrored or with
    independent signs, the positive ones times `scale`; or N(0, deviation^2) and biases that leave open as many of
    `batch` images as a robust soliton law of `constant` and `failure` draws for each unit, by the law of uniform pixels
    (soliton_free) or by the first public images (soliton_data).
    arithmetic: of the observation and of all that follows. rounded: images are known to have 8 bits, so a candidate
    that has is no mixture, and is rounded to them; the paper does not say that it does this.
    floor: of the largest bias gradient, below which a row is at rest. same: root mean square over pixels below which
    two candidates are one. tolerance: how likely a certificate may be met by chance, about the relative residual to the
    power of the rows that it is over, which is `loosest` at most. differs: the paper says "about 0" of all four.
    """

    server: Literal["passive", "trap", "soliton_free", "soliton_data"] = "passive"
    mirrored: bool = False
    scale: float = 0.99
    deviation: float = 0.5
    constant: float = 0.05
    failure: float = 0.4
    batch: int = 64
    arithmetic: Literal["float64", "float32"] = "float64"
    rounded: bool = False
    floor: float = 1e-12
    same: float = 1e-4
    tolerance: float = 1e-8
    loosest: float = 1e-4

    def skips(self, benchmark) -> str | None:
        if benchmark.threat.conduct == "honest" and self.server != "passive":
            return "an honest server sets neither weights nor biases"
        name, bias = benchmark.network.name, benchmark.network.bias
        if not bias or name not in (None, "mlp", "fc2"):  # a file's network may be anything
            return "needs a linear layer with biases that sees the image, and ReLU behind it"
        if self.server.startswith("soliton") and self.batch != benchmark.batch:
            return f"biases for {self.batch} images, the benchmark has {benchmark.batch}"
        return None

    def craft(self, model: nn.Module, public: Public | None, rng: torch.Generator) -> nn.Module:
        layer, scale = first_linear(model), self.scale if self.server == "trap" else 1.0
        weight = trap_weights(layer.weight.shape, self.deviation, scale, self.mirrored, rng)
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(self._biases(weight, public, rng))
        return model

    def _biases(self, weight: Tensor, public: Public | None, rng: torch.Generator) -> Tensor:
        if not self.server.startswith("soliton"):
            return weight.new_zeros(len(weight))
        law = robust_soliton(self.batch, self.constant, self.failure)
        degrees = 1 + law.multinomial(len(weight), replacement=True, generator=rng)
        if self.server == "soliton_free":
            return biases_by_law(weight, degrees, self.batch)
        if public is None or len(public.images) < self.batch:
            raise ValueError(f"biases from data need {self.batch} public images")
        return biases_by_images(weight, degrees, public.images[: self.batch].flatten(1).cpu())

    def reconstruct(self, seen: Gradient, rng: torch.Generator) -> Reconstruction:
        network = Network(seen, torch.float64 if self.arithmetic == "float64" else torch.float32)
        left, step = network.observed, 0
        least = self.floor * left.bias.abs().max()
        images, labels = left.weight.new_empty(0, *seen.shape[1:]), torch.empty(0, dtype=torch.long, device=seen.device)
        while len(images) < seen.shape[0]:
            found = self._candidates(left, least, images, network)
            if not network.affords(len(found.images)):
                break
            new, named = self._certified(found, left, network)
            new, named = new[: seen.shape[0] - len(images)], named[: seen.shape[0] - len(images)]
            if not len(new):
                break
            left = network.without(left, new, named)
            images, labels, step = torch.cat([images, new]), torch.cat([labels, named]), step + 1
            seen.snapshot(step, images, left.bias.norm())
        return Reconstruction(images, labels, {"loss": float(left.bias.norm())})

    def _candidates(self, left: Left, least: Tensor, known: Tensor, network: "Network") -> Candidates:
        """Step 1: what every row shows, if it is an image that opens the row's unit; equal ones as one, none known."""
        rows = (left.bias.abs() > least).nonzero()[:, 0]
        rows = rows[left.bias[rows].abs().argsort(descending=True)]
        inputs = left.weight[rows] / left.bias[rows, None]
        found = network.pixels(inputs)
        inside = (found - found.clamp(0, 1)).abs().amax(1) < self.same
        kept = inside & network.opens(inputs, rows) & ~self._equal(found, known.flatten(1)).any(1)
        rows, found = rows[kept], found[kept]
        equal = self._equal(found, found)
        first = equal & (equal.cumsum(1) == 1)  # of every row, the loudest one that shows the same
        heads = first.any(0).nonzero()[:, 0]
        members = torch.zeros(len(heads), len(left.bias), dtype=torch.bool, device=rows.device)
        members[:, rows] = first[:, heads].T
        return Candidates(found[heads].view(-1, *network.shape[1:]), members, rows[heads])

    def _equal(self, some: Tensor, others: Tensor) -> Tensor:
        """Which of (K, D) are which of (M, D): (K, M), bool."""
        return torch.cdist(some.double(), others.double()) < self.same * some.shape[1] ** 0.5

    def _certified(self, found: Candidates, left: Left, network: "Network") -> tuple[Tensor, Tensor]:
        """Step 2: the images (M, C, H, W) whose own gradient their rows hold, with the labels (M,) that it takes.

        A mixture of images has no label that leaves no residual. Its head alone says so of nearly all at the price of
        one more forward pass: no residual is smaller than what it leaves there.
        """
        size = (left.bias.square() * found.rows).sum(1)
        limit = self._limits(found, network)
        there = left.bias[found.head, None]
        off = (network.slopes_at(found) - there).abs().amin(1)
        near = off < limit * size.sqrt()
        found, size, limit = found.those(near), size[near], limit[near]
        if not len(found.images):
            return found.images, found.head
        apart = [((slope - left.bias).square() * found.rows).sum(1) for slope in network.slopes(found)]
        residual, label = (torch.stack(apart, 1) / size[:, None]).sqrt().min(1)
        sure = residual < limit
        images = found.images[sure]
        return (_in_8_bits(images) if self.rounded else images), label[sure]

    def _limits(self, found: Candidates, network: "Network") -> Tensor:
        """The largest relative residual (K,) of each candidate's certificate; single precision tells no less apart."""
        tolerance = max(self.tolerance, 8 * network.digits)
        limit = (tolerance ** (1 / found.rows.sum(1).to(found.images.dtype))).clamp(max=self.loosest)
        if self.rounded:
            limit = limit.masked_fill(of_8_bits(found.images.flatten(1)), self.loosest)
        return limit


class Network:
    """The victim's network in the attack's arithmetic, and what single images add to its first layer's gradient.

    digits: the relative error of the observation or of the arithmetic, whichever is larger.
    """

    def __init__(self, seen: Gradient, kind: torch.dtype) -> None:
        self.seen, self.shape, self.left = seen, seen.shape, seen.budget
        self.model = copy.deepcopy(seen.model).to(kind)
        self.layer = first_linear(self.model)
        given = gradient_of(first_linear(seen.model), seen.model, seen.gradient)
        self.digits = max(torch.finfo(dtype).eps for dtype in (kind, given[0].dtype))
        self.observed = Left(*(part.to(kind) for part in given))

    def pixels(self, inputs: Tensor) -> Tensor:
        """What the layer is given (K, D) -> the images (K, D) in [0, 1] that it is of."""
        return pixels_of(self.model, inputs.view(-1, *self.shape[1:])).flatten(1)

    def opens(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Whether each input (K, D) opens the unit (K,) that stands beside it: (K,), bool."""
        return (inputs * self.layer.weight[rows]).sum(1) + self.layer.bias[rows] > 0

    def affords(self, images: int) -> bool:
        """Whether the budget has these passes: one over so many images and, at most as long, those that follow it."""
        return self.left is None or 3 * -(-images // self.shape[0]) <= self.left

    def slopes(self, found: Candidates) -> Iterator[Tensor]:
        """Label by label, what each image adds to the layer's bias gradient if that is its label: (K, N)."""
        _, units, logits = self._passed(found.images)
        for label in range(self.seen.classes):
            yield self._slope(units, logits, torch.full_like(found.head, label))

    def slopes_at(self, found: Candidates) -> Tensor:
        """The same at each image's head alone, for every label at once (K, classes): by the chain rule, through logits.

        How the logits move with the head, J of the paper, is a derivative of the pass backwards by what is sent back.
        """
        _, units, logits = self._passed(found.images)
        back = torch.zeros_like(logits, requires_grad=True)
        (through,) = torch.autograd.grad(logits, units, back, create_graph=True)
        (moved,) = torch.autograd.grad(through.gather(1, found.head[:, None]).sum(), back)
        free = logits.detach().requires_grad_()
        labels = (torch.full_like(found.head, label) for label in range(self.seen.classes))
        return torch.stack([(self._slope(free, free, label) * moved).sum(1) for label in labels], 1)

    def without(self, left: Left, images: Tensor, labels: Tensor) -> Left:
        """Step 3: what is left when the gradient of these images and labels is taken away."""
        inputs, units, logits = self._passed(images)
        slope = self._slope(units, logits, labels)
        return Left(left.weight - slope.T @ inputs, left.bias - slope.sum(0))

    def _passed(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(what the layer is given (K, D), what it gives (K, N), logits (K, classes)) of images (K, C, H, W)."""
        if self.left is not None:
            self.left -= -(-len(images) // self.shape[0])
        kept: list[Tensor] = []
        handle = self.layer.register_forward_hook(lambda _, given, units: kept.extend((given[0].detach(), units)))
        try:
            logits = self.model(images)
        finally:
            handle.remove()
        return kept[0], kept[1], logits

    def _slope(self, units: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The victim's loss, which is a mean over its whole batch, derived by `units` for each image alone."""
        loss = self.seen.loss(logits, labels) * (len(labels) / self.shape[0])
        return torch.autograd.grad(loss, units, retain_graph=True)[0]


def _in_8_bits(images: Tensor) -> Tensor:
    """Images (K, C, H, W) of 8 bits as they are stored, in single precision; the others as they are."""
    stored = ((255 * images).round() / 255).float().to(images.dtype)
    return torch.where(of_8_bits(images.flatten(1)).view(-1, 1, 1, 1), stored, images)
