"""What is trained once, described: network, images, objective and seed. Equal descriptions share their weights.

A description says nothing of where or by whom it is trained; `recipes/` does that. An attack names the prior that it
needs by returning one of these from `prior(benchmark)`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from leakboard.config.hashes import digest
from leakboard.config.sections import Images, Network, Normalise, Strict, Training, differing


def _named(images: Images) -> Images:
    if images.unnamed:
        raise ValueError("a recipe's images name their data set; a benchmark's own are `benchmark.public_images`")
    return images


NamedImages = Annotated[Images, AfterValidator(_named)]


class Classifier(Strict):
    """A victim or an evaluator: `network`, as it is drawn before training, trained by `training`.

    data: whose shape and classes the network has, and of which the training images are where they name no data set.
    """

    kind: ClassVar[str] = "classifier"

    network: Network
    training: Training
    data: NamedImages
    normalise: Literal["none", "imagenet"] | Normalise = "none"
    seed: int

    @property
    def trained_on(self) -> Images:
        return self.training.images.of(self.data)

    @property
    def hash(self) -> str:
        return digest({"kind": self.kind, **self.said()})

    def said(self) -> dict[str, Any]:
        """What differs from the defaults and changes a weight: of `data`, which set it is and at which size."""
        data = {key: value for key, value in self.data.source.items() if value is not None}
        images = differing(self.trained_on, self.data.source)
        training = {**differing(self.training, {}, frozenset({"images"})), **({"images": images} if images else {})}
        rest = differing(self, {}, frozenset({"training", "data"}))
        return {**rest, "training": training, "data": data}


class Generator(Strict):
    """A network that draws images like `images` from noise, and the critic that it was trained against.

    Both are convolutional, as DCGAN's (Radford, Metz and Chintala 2016). form: what they are trained by, `wgan_gp`
    (Gulrajani et al. 2017) with the weight `penalty` of its gradient penalty, or `dcgan`, the log loss of that paper.
    noise: numbers in a draw, from N(0, 1). width: channels that the last doubling of the side starts from, each one
    before it from twice as many. epochs: passes of the critic over the images. critic_steps: of the critic for one of
    the generator; None: the paper's, 5 for wgan_gp and 1 for dcgan. rate, betas: Adam's, for both.
    """

    kind: ClassVar[str] = "generator"

    images: NamedImages
    form: Literal["wgan_gp", "dcgan"] = "wgan_gp"
    noise: int = Field(default=100, ge=1)
    width: int = Field(default=64, ge=1)
    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=64, ge=1)
    critic_steps: int | None = Field(default=None, ge=1)
    penalty: float = Field(default=10.0, ge=0)
    rate: float = Field(default=2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)
    seed: int = 0

    @model_validator(mode="after")
    def _penalty_is_of_wgan_gp(self) -> Generator:
        if self.form != "wgan_gp" and self.penalty != type(self).model_fields["penalty"].default:
            raise ValueError(f"`penalty` is of the form wgan_gp; {self.form} has none")
        return self

    @property
    def trained_on(self) -> Images:
        return self.images

    @property
    def hash(self) -> str:
        return digest({"kind": self.kind, **self.said()})


class Degradation(Strict):
    """What is done to an image, in this order; pixels are in [0, 1] and are clamped to it at the end.

    blur: standard deviation of a Gaussian, in pixels. block: side of the squares that are averaged. noise: standard
    deviation of Gaussian noise that is added.
    """

    blur: float = Field(default=0.0, ge=0)
    block: int = Field(default=1, ge=1)
    noise: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _does_something(self) -> Degradation:
        if not self.blur and not self.noise and self.block == 1:
            raise ValueError("nothing is degraded: `blur` and `noise` are 0, `block` is 1")
        return self


class Restorer(Strict):
    """A residual network that undoes `degradation`, trained on pairs (degraded, clean) of `images` by squared error.

    width: channels; depth: residual blocks of two convolutions. rate: Adam's, falling to 0 along a cosine.
    """

    kind: ClassVar[str] = "restorer"

    images: NamedImages
    degradation: Degradation
    width: int = Field(default=32, ge=1)
    depth: int = Field(default=4, ge=1)
    epochs: int = Field(default=20, ge=1)
    batch: int = Field(default=32, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    seed: int = 0

    @property
    def trained_on(self) -> Images:
        return self.images

    @property
    def hash(self) -> str:
        return digest({"kind": self.kind, **self.said()})


Recipe = Classifier | Generator | Restorer
