"""MI-FACE: model inversion that exploits confidences (Fredrikson, Jha and Ristenpart, CCS 2015)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from leakboard.attack.priors import total_variation
from leakboard.threat import Reconstruction, ReleasedModel

TINY = 1e-10
Score = Callable[[Tensor], Tensor]  # images (N, C, H, W) -> the confidence in the target (N,)


@dataclass(frozen=True)
class ModelInversion:
    """Algorithm 1: gradient descent on c(x) = 1 - f_target(x), from a start that knows nothing of the target.

    It ends after `steps`, after `patience` of them without a higher confidence, or at the confidence `threshold`; the
    iterate with the highest confidence is handed in (the algorithm's argmin; two public implementations return the
    last one). start: zeros, as published; grey (.5); mean, of the public images. cost: one_minus, as published, or
    cross_entropy, -log f_target.

    search: descent, in pixels; latent, in the codes of a stack of autoencoders, every step followed by the paper's
    Process (algorithm 2: decode, denoise, sharpen, encode); adam, the form of public implementations: `steps` at each
    of three rates inside the box, with total variation and the distance to the start as priors; differences, what is
    left where a model only answers queries: the gradient from answers along `directions` of length `width`, each step
    as long as gives the highest confidence. Directions are single pixels, blocks, or `count` smooth random fields,
    each one also backwards.
    differs: where a box is left it is clamped at the end, as by whoever looks at the image. Rates are per network.
    """

    search: Literal["descent", "latent", "adam", "differences"] = "descent"
    start: Literal["zeros", "grey", "mean"] = "zeros"
    cost: Literal["one_minus", "cross_entropy"] = "one_minus"
    rate: float = 0.1
    steps: int = 5000
    patience: int = 100
    threshold: float = 0.99
    tv: float = 1.0e-4
    distance: float = 1.0e-4
    directions: Literal["pixels", "blocks", "smooth"] = "blocks"
    width: float = 1.0
    count: int = 50

    def skips(self, benchmark) -> str | None:
        if self.search == "differences" and self.directions == "pixels" and benchmark.scale == "paper":
            return "single pixels: 700,000 queries a person at full size, for the image of the white box"
        if self.search != "differences" and benchmark.threat.access == "black":
            return "needs gradients, which a black box does not give"
        return None

    def reconstruct(self, seen: ReleasedModel, rng: torch.Generator) -> Reconstruction:
        search = {"descent": self._descent, "latent": self._latent, "adam": self._adam}
        if self.search == "differences":
            got, confidence = self._differences(seen, rng)
        else:
            got, confidence = search[self.search](seen)
        return Reconstruction(got, info={"loss": 1 - confidence})

    def _start(self, seen: ReleasedModel) -> Tensor:
        """(1, C, H, W)"""
        if self.start == "mean":
            if seen.public is None:
                raise ValueError("the start `mean` needs public images, which the benchmark does not give")
            return seen.public.images.mean(0, keepdim=True)
        return torch.full((1, *seen.shape[1:]), 0.0 if self.start == "zeros" else 0.5, device=seen.device)

    def _steps(self, seen: ReleasedModel, steps: int) -> int:
        return steps if seen.budget is None else min(steps, seen.budget)

    def _descent(self, seen: ReleasedModel) -> tuple[Tensor, float]:
        def logits(x: Tensor) -> Tensor:
            return seen.model(x)

        return self._descended(seen, logits, self._start(seen), lambda x: x)

    def _latent(self, seen: ReleasedModel) -> tuple[Tensor, float]:
        """The codes start from zeros too. One pass through what follows them is one evaluation."""
        stack: Any = next((module for module in seen.model.modules() if hasattr(module, "decode")), None)
        if stack is None:
            raise ValueError("the search `latent` needs a stack of autoencoders, which the released model is not")

        def logits(codes: Tensor) -> Tensor:
            seen.spend()
            return stack.classify(codes)

        def process(codes: Tensor) -> Tensor:
            return stack.encode(sharpened(denoised(stack.decode(codes))))

        with torch.no_grad():
            start = torch.zeros_like(stack.encode(self._start(seen)))
        codes, confidence = self._descended(seen, logits, start, process)
        with torch.no_grad():
            return stack.decode(codes), confidence

    def _descended(
        self, seen: ReleasedModel, logits: Score, x: Tensor, process: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, float]:
        """Algorithm 1 from `x` on: the best iterate and its confidence."""
        best, highest, since = x, -math.inf, 0
        for _ in range(self._steps(seen, self.steps)):
            x = x.detach().requires_grad_()
            log = logits(x).log_softmax(1)[0, seen.target]
            (slope,) = torch.autograd.grad(-log if self.cost == "cross_entropy" else 1 - log.exp(), x)
            confidence = float(log.detach().exp())
            since += 1
            if confidence > highest:
                best, highest, since = x.detach(), confidence, 0
            if highest >= self.threshold or since >= self.patience:
                break
            with torch.no_grad():
                x = process(x - self.rate * slope)
        return best, highest

    def _adam(self, seen: ReleasedModel) -> tuple[Tensor, float]:
        start = self._start(seen)
        best, highest, left = start, -math.inf, self._steps(seen, 3 * self.steps)
        x = start.clone().requires_grad_()
        for stage in range(3):
            adam = torch.optim.Adam([x], self.rate / 10**stage)
            for _ in range(min(self.steps, left - stage * self.steps)):
                confidence = seen.model(x).softmax(1)[0, seen.target]
                if float(confidence.detach()) > highest:
                    best, highest = x.detach().clone(), float(confidence.detach())
                prior = self.tv * total_variation(x) + self.distance * (x - start).square().sum().clamp(TINY).sqrt()
                adam.zero_grad()
                (prior - (confidence + TINY).log()).backward(inputs=[x])
                adam.step()
                with torch.no_grad():
                    x.clamp_(0, 1)
        return best, highest

    def _differences(self, seen: ReleasedModel, rng: torch.Generator) -> tuple[Tensor, float]:
        """From answers alone. A step asks once along every direction, and for eight lengths of the step."""
        lengths = 2.0 ** -torch.arange(8.0, device=seen.device).view(-1, 1, 1, 1)
        left = math.inf if seen.budget is None else seen.budget

        def score(images: Tensor) -> Tensor:
            nonlocal left
            left -= len(images)
            with torch.no_grad():
                return seen.query(images)[:, seen.target]

        x = self._start(seen)
        highest = float(score(x))
        for _ in range(self.steps):
            along = directions(self.directions, self.count, seen.shape[1:], rng).to(x)
            if left < len(along) + len(lengths) or highest >= self.threshold:
                break
            slope = numerical(score, x, highest, along, self.width)
            tries = (x + lengths * slope / slope.abs().max().clamp(TINY)).clamp(0, 1)
            confidences = score(tries)
            if float(confidences.max()) <= highest:
                break
            x, highest = tries[confidences.argmax()][None], float(confidences.max())
        return x, highest


def directions(kind: str, count: int, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """(K, C, H, W) of largest entry 1. pixels: H x W of them; blocks: squares of H // 28 pixels, two at the least, that
    tile the image; smooth: `count` random fields of H // 8 coarse pixels, three at the least, then their opposites.
    """
    channels, height, width = shape
    if kind == "smooth":
        coarse = (max(3, height // 8), max(3, width // 8))
        fields = torch.randn(count, channels, *coarse, generator=rng)
        fields = F.interpolate(fields, size=(height, width), mode="bicubic", align_corners=False)
        fields = fields / fields.abs().amax((1, 2, 3), keepdim=True)
        return torch.cat([fields, -fields])
    side = 1 if kind == "pixels" else max(2, height // 28)
    rows, columns = -(-height // side), -(-width // side)
    squares = torch.eye(rows * columns).view(-1, 1, rows, columns)
    whole = squares.repeat_interleave(side, 2).repeat_interleave(side, 3)[:, :, :height, :width]
    return whole.expand(-1, channels, -1, -1)


def numerical(score: Score, x: Tensor, here: float, along: Tensor, width: float) -> Tensor:
    """The slope of the score at x (1, C, H, W), where it is `here`, from its values `width` further along directions
    (K, C, H, W): the one whose derivative along each of them is the difference quotient, where they are orthogonal.

    What is asked for is an image: it is clamped, so a direction is followed backwards where most of it is bright, and
    the quotient is over the distance that was really gone.
    """
    sizes = along.square().sum((1, 2, 3), keepdim=True)
    bright = ((x * along).sum((1, 2, 3), keepdim=True) > 0.5 * along.sum((1, 2, 3), keepdim=True)) & (along >= 0).all()
    asked = (x + torch.where(bright, -width, width) * along).clamp(0, 1)
    gone = ((asked - x) * along).sum((1, 2, 3), keepdim=True) / sizes
    quotients = (score(asked).view(-1, 1, 1, 1) - here) / torch.where(gone == 0, math.inf, gone)
    return (quotients / sizes * along).sum(0, keepdim=True)


def denoised(images: Tensor) -> Tensor:
    """(1, C, H, W) by non-local means, channel by channel, the paper's filter; how strong it is there is not told."""
    from skimage.restoration import denoise_nl_means

    channels = images[0].detach().cpu().double().numpy()
    clean = [denoise_nl_means(channel, patch_size=5, patch_distance=6, h=0.05) for channel in channels]
    return torch.stack([torch.from_numpy(channel) for channel in clean]).to(images)[None]


def sharpened(images: Tensor) -> Tensor:
    """(B, C, H, W): each pixel and half of what sets it off from the mean of its 3x3 neighbourhood, in [0, 1]."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return (images + 0.5 * (images - F.avg_pool2d(padded, 3, stride=1))).clamp(0, 1)
