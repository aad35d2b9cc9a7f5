"""What is trained once, described: network, images, objective and seed. Equal descriptions share their weights.

A description says nothing of where or by whom it is trained; `recipes/` does that. An attack names the prior that it
needs by returning one of these from `prior(benchmark)`, or one for every trial from `prior(benchmark, trial)`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from leakboard.config.hashes import digest
from leakboard.config.kinds import Count, Name, NotNegative, OwnPath, Part, Positive, Seed, Strength
from leakboard.config.sections import Images, Network, Normalise, Strict, differing
from leakboard.config.trainings import Reject, Training


def _named(images: Images) -> Images:
    if images.unnamed:
        raise ValueError("a recipe's images name their data set; a benchmark's own are `benchmark.public_images`")
    return images


NamedImages = Annotated[Images, AfterValidator(_named)]


class Described(Strict):
    """What every recipe has: its kind, and a hash of what it says."""

    kind: ClassVar[str]

    @property
    def hash(self) -> str:
        return digest({"kind": self.kind, **self.said()})


class OfImages(Described):
    """A recipe of `images`, which name their data set: what is trained sees these alone."""

    images: NamedImages

    @property
    def trained_on(self) -> Images:
        return self.images


class Classifier(Described):
    """A victim or an evaluator: `network`, as it is drawn before training, trained by `training`.

    data: whose shape and classes the network has, and of which the training images are where they name no data set.
    reject: what it is to take for none of them, an output of its own after those of the classes. defence: under which
    it is trained, as a benchmark names it; then by `victim/price.py`, which knows what acts.
    """

    kind: ClassVar[str] = "classifier"

    network: Network
    training: Training
    data: NamedImages
    normalise: Literal["none", "imagenet"] | Normalise = "none"
    reject: Reject | None = None
    defence: dict[Name, dict[Name, Strength]] = Field(default_factory=dict)
    seed: Seed

    @property
    def trained_on(self) -> Images:
        return self.training.images.of(self.data)

    @property
    def rejected(self) -> Images | None:
        """The images that it is to take for no class."""
        if self.reject is None or self.reject.images is None:
            return None
        return self.reject.images.of(self.data)

    def said(self) -> dict[str, Any]:
        """What differs from the defaults and changes a weight: of `data`, which set it is and at which size."""
        data = {key: value for key, value in self.data.source.items() if value is not None}
        images = differing(self.trained_on, self.data.source)
        training = {**differing(self.training, {}, frozenset({"images"})), **({"images": images} if images else {})}
        rest = differing(self, {}, frozenset({"training", "data"}))
        return {**rest, "training": training, "data": data}


class Degradation(Strict):
    """What is done to an image, in this order; pixels are in [0, 1] and are clamped to it at the end.

    blur: standard deviation of a Gaussian, in pixels. block: side of the squares that are averaged. noise: standard
    deviation of Gaussian noise that is added. mask: side of a black square in the middle, as a share of the image's.
    """

    blur: NotNegative = 0.0
    block: Count = 1
    noise: NotNegative = 0.0
    mask: Part = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> Degradation:
        if not self.blur and not self.noise and not self.mask and self.block == 1:
            raise ValueError("nothing is degraded: `blur`, `noise` and `mask` are 0, `block` is 1")
        return self


class Generator(OfImages):
    """A network that draws images like `images` from noise, and the critic that it was trained against.

    layers: `convolutional`, as DCGAN's (Radford, Metz and Chintala 2016), or `linear`, of fixed sizes. form: what they
    are trained by, `wgan_gp` (Gulrajani et al. 2017) with the weight `penalty` of its gradient penalty, or `dcgan`, the
    log loss of that paper. noise: numbers in a draw, from N(0, 1). width: channels that the last doubling of the side
    starts from, each one before it from twice as many. epochs: passes of the critic over the images. critic_steps: of
    the critic for one of the generator; None: the paper's, 5 for wgan_gp, 1 for dcgan. rate, betas: Adam's, for both.
    completes: what was done to the images that draws shall fit, and which are given beside the noise. Then a draw is
    held to what it was given, by `fidelity` times the squared error once it is degraded likewise, and two draws to be
    unlike each other, by `diversity` (Zhang et al. 2020, section 3.1).
    """

    kind: ClassVar[str] = "generator"

    layers: Literal["convolutional", "linear"] = "convolutional"
    form: Literal["wgan_gp", "dcgan"] = "wgan_gp"
    noise: Count = 100
    width: Count = 64
    epochs: Count = 100
    batch: Count = 64
    critic_steps: Count | None = None
    penalty: NotNegative = 10.0
    rate: Positive = 2e-4
    betas: tuple[Part, Part] = (0.5, 0.999)
    completes: Degradation | None = None
    fidelity: NotNegative = 10.0
    diversity: NotNegative = 0.5
    seed: Seed = 0

    @model_validator(mode="after")
    def _keys_go_together(self) -> Generator:
        if self.completes is not None and self.layers != "convolutional":
            raise ValueError("`completes` goes with `layers: convolutional`")
        fields = type(self).model_fields
        of_completing = ("fidelity", "diversity")
        if self.completes is None and any(getattr(self, key) != fields[key].default for key in of_completing):
            raise ValueError("`fidelity` and `diversity` go with `completes`")
        return self

    @model_validator(mode="after")
    def _penalty_is_of_wgan_gp(self) -> Generator:
        if self.form != "wgan_gp" and self.penalty != type(self).model_fields["penalty"].default:
            raise ValueError(f"`penalty` is of the form wgan_gp; {self.form} has none")
        return self


class Restorer(OfImages):
    """A network that undoes `degradation`, trained on pairs (degraded, clean) of `images`.

    form: `residual`, blocks of two convolutions, or `nafnet` (Chen et al. 2022, section 4), both `depth` blocks of
    `width` channels. error: of what is restored, `squared` or `absolute` (L1). adversary: weight, beside that error, of
    the log loss of a critic that learns to tell restored images from clean ones (SRGAN, Ledig et al. 2017, equation 6).
    rate: Adam's, falling to 0 along a cosine.
    """

    kind: ClassVar[str] = "restorer"

    degradation: Degradation
    form: Literal["residual", "nafnet"] = "residual"
    error: Literal["squared", "absolute"] = "squared"
    adversary: NotNegative = 0.0
    width: Count = 32
    depth: Count = 4
    epochs: Count = 20
    batch: Count = 32
    rate: Positive = 1e-3
    seed: Seed = 0


class Denoiser(OfImages):
    """DnCNN (Zhang et al. 2017) as its authors trained it: of grey photographs, for Gaussian noise of 25 / 255.

    images: whose shape it takes, channel by channel. Nothing is trained: what its weights have seen is their owner's
    word.
    """

    kind: ClassVar[str] = "denoiser"


class Diffusion(OfImages):
    """A small diffusion model of `images`, which tells the noise in an image (Ho, Jain and Abbeel 2020, algorithm 1).

    Of classes, and of none: the class is left out for a share `dropped` of the training images, so that one network
    serves classifier-free guidance (Ho and Salimans 2022, algorithm 1). width: channels at full size, and twice as many
    below. levels: sizes that it works at, each half of the one before. rate: Adam's, falling to 0 along a cosine.
    folder: of a pipeline that diffusers saved (`unet/`, `scheduler/`), which is taken as it is in place of a training.
    What lies there is part of the hash; what it was trained on is its owner's word, as `images` are.
    """

    kind: ClassVar[str] = "diffusion"

    width: Count = 32
    levels: Count = 3
    epochs: Count = 100
    batch: Count = 64
    rate: Positive = 1e-3
    dropped: Part = 0.1
    folder: OwnPath | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _trained_or_taken(self) -> Diffusion:
        training = sorted(self.said().keys() - {"images", "folder"})
        if self.folder is not None and training:
            raise ValueError(f"`folder` is taken as it is: {', '.join(training)} go with a training")
        return self


Recipe = Classifier | Generator | Restorer | Denoiser | Diffusion
