"""Peers' images from consecutive global models (Wilson, Yue, Wong and Dai 2024): their mean update is matched."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leakboard import config
from leakboard.attack import diffusion
from leakboard.attack.costs import squared_distance
from leakboard.attack.fitting import fitted, paired
from leakboard.attack.labels import row_sum_labels
from leakboard.attack.local_steps import batches_of, mean_gradient
from leakboard.attack.matching import Matching, Precision
from leakboard.attack.priors import total_variation_slope
from leakboard.config.recipes import Degradation, Denoiser, Diffusion, Restorer
from leakboard.threat import LocalTraining, ModelSequence, ModelUpdate, Public, Reconstruction

Observed = ModelSequence | ModelUpdate


class Found(NamedTuple):
    """Where a search ended: images (B, C, H, W), labels (B,), the last loss, and what was spent on it."""

    images: Tensor
    labels: Tensor
    loss: float
    evaluations: int


@dataclass(frozen=True)
class Peer:
    """What a client finds out about the images of all its peers together.

    Two global models differ by the mean update, of which the client takes its own part off; a server that gets the sum
    of the peers alone has that at once. How often each class occurs is read off the last layer, where no labels are
    given. Images of at most `side` pixels a side, from U(0, 1), are upsampled (bicubic) and go through the local steps
    of all peers as one batch; Adam at `rate`, falling to `final_rate` along a cosine, brings their update to the
    observed one: squared distance over |observed|^2, of several rounds the mean, + `tv` x total variation, in the box.

    rates: learning rates to try in place of the one that is told; each is taken for the scale of the update and for the
    local steps alike, in a search of `probe` steps, and the lowest loss decides. assumed_rate: the learning rate as the
    attacker takes it, over what it was told. dummies: public images that the label rule needs.
    post: what comes out goes through a 3x3 mean filter; a `restorer` of public images (L1, its `form` and `adversary`
    those of the recipe) that undoes `blur` and `noise`, or is `fitted` to what this attack makes of public images in so
    many `rehearsals`; a `dncnn` of photographs; a diffusion model of public images, by `ddrm` (`noise` is known) or by
    the `semantic` search of a start whose class-conditional chain ends near it. `class_only`, a control, is a chain of
    the labels alone. folder: a pipeline that diffusers saved, in place of a model trained here. told: false, a control,
    searches for the update of public images of the same labels.
    differs: the authors' code leaves its own part in, is given the labels in order, and rescales by a wrong learning
    rate the update alone.
    """

    side: int = 32
    steps: int = 100
    rate: float = 0.1
    final_rate: float = 0.01
    tv: float = 0.0
    rates: tuple[float, ...] = ()
    probe: int = 10
    assumed_rate: float = 1.0
    dummies: int = 32
    told: bool = True
    post: Literal["none", "mean_filter", "restorer", "fitted", "dncnn", "ddrm", "semantic", "class_only"] = "none"
    form: Literal["residual", "nafnet"] = "residual"
    adversary: float = 0.0
    blur: float = 0.8
    noise: float = 0.1
    width: int = 16
    depth: int = 2
    epochs: int = 20
    rehearsals: int = 6
    updates: int = 300
    chain: int = 50
    iterations: int = 30
    guidance: float = 2.0
    folder: str | None = None
    precision: Precision = "float32"

    def skips(self, benchmark: config.Benchmark) -> str | None:
        spec = benchmark.federation
        if spec is not None and (spec.share < 1 or spec.rule != "average"):
            return "its own part can be taken off an average of all clients only"
        if spec is not None and (spec.optimiser != "sgd" or spec.batch is not None):
            return "only local steps of SGD on all of a client's images can be gone through"
        if self.post == "dncnn" and benchmark.data.name == "digits":
            return "its denoiser is of photographs, and digits of 8x8 pixels are none"
        if "local_training" not in benchmark.threat.knows and not self.rates:
            return "the learning rate is not told, and there is none to try"
        return None

    def prior(self, benchmark: config.Benchmark) -> Restorer | Denoiser | Diffusion | None:
        images = benchmark.public_images
        if self.post in ("none", "mean_filter") or images is None:
            return None
        if self.post == "dncnn":
            return None if self.skips(benchmark) else Denoiser(images=images)
        if self.post not in ("restorer", "fitted"):
            if self.folder is not None:
                return Diffusion(images=images, folder=Path(self.folder))
            return Diffusion(images=images, width=self.width, levels=2, epochs=self.epochs)
        return Restorer(
            images=images,
            degradation=Degradation(blur=self.blur, noise=self.noise),
            form=self.form,
            error="absolute",
            adversary=self.adversary,
            width=self.width,
            depth=self.depth,
            epochs=self.epochs,
        )

    def reconstruct(self, seen: Observed, rng: torch.Generator) -> Reconstruction:
        start = self._start(seen, rng)
        guesses, left = self._guesses(seen.local), seen.budget
        if len(guesses) > 1:
            each = None if left is None else left // (2 * len(guesses))
            unwatched = replace(seen, observer=None)  # the curve is that of the last search
            tried = [self._search(unwatched, guess, start, rng, self.probe, each) for guess in guesses]
            guesses = [min(zip(tried, guesses, strict=True), key=lambda pair: pair[0].loss)[1]]
            left = None if left is None else left - sum(found.evaluations for found in tried)
        each = None if left is None else left // (1 + self.rehearsals * (self.post == "fitted"))
        found = self._search(seen, guesses[0], start, rng, self.steps, each)
        if self.post == "fitted":
            seen = replace(seen, prior=self._fitted(seen, found.labels, guesses[0], rng, each))
        return Reconstruction(self._processed(seen, found, rng), found.labels, {"loss": found.loss})

    def _start(self, seen: Observed, rng: torch.Generator) -> Tensor:
        return torch.rand(*seen.shape[:2], *(min(self.side, side) for side in seen.shape[2:]), generator=rng)

    def _guesses(self, told: LocalTraining | None) -> list[LocalTraining]:
        """What the peers' local training may be; one step, where nothing is told of it."""
        if self.rates:
            known = told or LocalTraining(self.rates[0], steps=1)
            return [replace(known, learning_rate=rate) for rate in self.rates]
        if told is None:
            raise ValueError("the benchmark tells no learning rate, and `rates` has none to try")
        return [replace(told, learning_rate=told.learning_rate * self.assumed_rate)]

    def _search(
        self,
        seen: Observed,
        local: LocalTraining,
        start: Tensor,
        rng: torch.Generator,
        steps: int,
        budget: int | None,
    ) -> Found:
        """From images (B, C, h, w) at low resolution, as many steps as there is budget for, at least one."""
        views = views_of_peers(seen, local)
        labels, spent = self._labels(seen, views[0])
        if not self.told:
            views = [as_if_of(view, of_labels(seen.public, labels, rng), labels) for view in views]
            spent += len(views) * local.steps
        return self._descent(seen, views, labels, start, steps, budget, spent)

    def _descent(
        self,
        seen: Observed,
        views: list[ModelUpdate],
        labels: Tensor,
        start: Tensor,
        steps: int,
        budget: int | None,
        spent: int,
    ) -> Found:
        """Of what the budget was, so many evaluations are spent already."""
        matching = Matching(views, relative_distance, self.precision)
        passes = len(views) * matching.passes
        steps = steps if budget is None else max(1, min(steps, (budget - spent) // passes))
        point = start.to(seen.device, matching.dtype).clone().requires_grad_()
        adam = torch.optim.Adam([point], self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, self.final_rate)
        values = point.new_full((1,), torch.inf)
        for step in range(1, steps + 1):
            images = upsampled(point, seen.shape).expand(len(views), *seen.shape)
            values, (slope,) = matching(images, labels.expand(len(views), -1), [point])
            _, variation = total_variation_slope(point.detach()[None])
            point.grad = slope / len(views) + self.tv * variation[0]
            adam.step()
            schedule.step()
            with torch.no_grad():
                point.clamp_(0, 1)
            seen.snapshot(step, upsampled(point.detach(), seen.shape), values.mean())
        images = upsampled(point.detach(), seen.shape).clamp(0, 1)
        return Found(images, labels, float(values.mean()), spent + steps * passes)

    def _labels(self, seen: Observed, view: ModelUpdate) -> tuple[Tensor, int]:
        """The labels (B,), given or counted (Geng et al. 2021), and what counting them spent."""
        if seen.labels is not None:
            return seen.labels, 0
        if seen.public is None:
            raise ValueError("counting labels needs public images")
        dummies = seen.public.images[: self.dummies]
        along = view.local is not None and view.local.steps > 1
        return row_sum_labels(view, dummies, along), (1 + along) * -(-len(dummies) // seen.shape[0])

    def _fitted(
        self, seen: Observed, labels: Tensor, local: LocalTraining, rng: torch.Generator, budget: int | None
    ) -> nn.Module:
        """The restorer, trained on: pairs of public images with what the same search makes of their update."""
        unwatched, views, pairs = replace(seen, observer=None), views_of_peers(seen, local), []
        for _ in range(self.rehearsals):
            true = of_labels(seen.public, labels, rng)
            others = [as_if_of(view, true, labels) for view in views]
            spent = len(views) * local.steps
            found = self._descent(unwatched, others, labels, self._start(seen, rng), self.steps, budget, spent)
            pairs.append(paired(found.images.float(), true))
        if seen.prior is None:
            raise ValueError("post: fitted needs public images to train on")
        got, true = (torch.cat(part) for part in zip(*pairs, strict=True))
        return fitted(seen.prior, got, true, self.updates, rng)

    def _processed(self, seen: Observed, found: Found, rng: torch.Generator) -> Tensor:
        """The images found (B, C, H, W), float32 in [0, 1], as `post` has them."""
        images, prior = found.images.float(), cast(Any, seen.prior)
        if self.post == "none":
            return images
        if self.post == "mean_filter":
            return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        if prior is None:
            raise ValueError(f"post: {self.post} needs public images to train on")
        if self.post in ("restorer", "fitted", "dncnn"):
            with torch.no_grad():
                return prior(images)
        if self.post == "ddrm":
            return diffusion.ddrm(prior, images, rng, noise=self.noise, steps=self.chain)
        if self.post == "semantic":
            how = self.chain, self.iterations
            return diffusion.semantic(prior, images, found.labels, rng, *how, guidance=self.guidance)
        noise = torch.randn(images.shape, generator=rng).to(images)
        return diffusion.sample(prior, noise, found.labels, self.chain, self.guidance)


def upsampled(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Images (B, C, h, w) at the size of `shape` = (B, C, H, W), bicubic; may leave [0, 1]."""
    if images.shape[2:] == shape[2:]:
        return images
    return F.interpolate(images, size=tuple(shape[2:]), mode="bicubic", align_corners=False)


def views_of_peers(seen: Observed, local: LocalTraining) -> list[ModelUpdate]:
    """The peers' mean update in every round, as a server sees it that gets their sum; a server's view as it is.

    The models differ by D, a mean weighted by images. Of n own images and B of the peers, with the own update d, the
    peers' is ((n + B) D - n d) / B.
    """
    if isinstance(seen, ModelUpdate):
        return [replace(seen, local=local)]
    own, peers = len(seen.own_data.images), seen.shape[0]
    names = [name for name, _ in seen.model.named_parameters()]
    views = []
    for (before, after), mine in zip(pairwise(seen.models), seen.own_update, strict=True):
        model = copy.deepcopy(seen.model)
        model.load_state_dict(before)
        changes = [after[name].double() - before[name].double() for name in names]
        update = [((own + peers) * D - own * d.double()) / peers for D, d in zip(changes, mine, strict=True)]
        views.append(
            ModelUpdate(
                model=model, loss=seen.loss, shape=seen.shape, classes=seen.classes, local=local,
                update=tuple(part.to(d) for part, d in zip(update, mine, strict=True)),
            )
        )  # fmt: skip
    return views


def as_if_of(view: ModelUpdate, images: Tensor, labels: Tensor) -> ModelUpdate:
    """The view of a federation in which the peers hold these images (B, C, H, W) of these labels (B,)."""
    assert view.local is not None
    slope = mean_gradient(view.model, view.loss, batches_of(images, labels, view.local), view.local)
    return replace(view, update=tuple(-sum(view.local.rates) * part.detach() for part in slope))


def of_labels(public: Public | None, labels: Tensor, rng: torch.Generator) -> Tensor:
    """For every label (B,) a public image (B, C, H, W) of it; where there is none, any."""
    if public is None:
        raise ValueError("a search after other images needs public ones")
    order = torch.randperm(len(public.labels), generator=rng).to(public.labels.device)
    places, taken = [], torch.zeros_like(order, dtype=torch.bool)
    for label in labels:
        fits = (~taken & (public.labels[order] == label)).nonzero().flatten()
        place = fits[0] if len(fits) else (~taken).nonzero().flatten()[0]
        taken[place] = True
        places.append(order[place])
    return public.images[torch.stack(places)]


def relative_distance(got: Sequence[Tensor], observed: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """sum_l |g_l - g*_l|^2 / sum_l |g*_l|^2: comparable among learning rates, which scale both."""
    value, cotangent = squared_distance(got, observed)
    scale = torch.stack([part.square().sum() for part in observed]).sum().clamp_min(1e-30)
    return value / scale, [part / scale for part in cotangent]
