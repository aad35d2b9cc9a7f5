"""Every metric once: what it is called, how it is averaged over trials, how it is shown, and which way is better.

A judge computes it (`score/`), a column of `trials.csv` holds it, a benchmark names it in `metrics`; all three take its
name from here. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """average: `mean` over trials; `share`: the mean of numbers in [0, 1]; `median`, of costs.

    truth: what it is judged against, images, labels or classes; `cost`: what was spent, comparable on one kind of
    device only; `victim`: what the victim is like. digits: of the format in which readers meet it. note: one line for
    those who meet the name for the first time.
    """

    name: str
    heading: str
    note: str
    average: Literal["mean", "share", "median"] = "mean"
    better: Literal["higher", "lower"] = "higher"
    truth: Literal["images", "labels", "classes", "cost", "victim"] = "images"
    digits: str = ".3g"
    capped: bool = False  # whether inf stands for "never reached"


def _share(name: str, heading: str, note: str, truth: Literal["images", "labels", "classes"] = "images") -> Metric:
    return Metric(name, heading, note, average="share", truth=truth, digits=".2f")


def _cost(name: str, heading: str, note: str, capped: bool = False) -> Metric:
    return Metric(name, heading, note, average="median", better="lower", truth="cost", capped=capped)


def _of_class(name: str, heading: str, note: str, better: Literal["higher", "lower"] = "higher") -> Metric:
    return Metric(name, heading, note, better=better, truth="classes", digits=".2f")


_FEATURES = "1 - cosine to the nearest one in the evaluator's last layer"
_ALL = (
    Metric("gradient_norm", "gradient norm", "of the victim's gradient, all parameters as one vector", truth="victim"),
    Metric("mse", "MSE", "mean squared error of pixels in [0, 1]", better="lower"),
    Metric("psnr", "PSNR (dB)", "per image on [0, 1], capped at 100 dB, then averaged", digits=".1f"),
    Metric("ssim", "SSIM", "structural similarity, 11x11 Gaussian window", digits=".2f"),
    Metric("lpips", "LPIPS", "perceptual distance, SqueezeNet backbone", better="lower", digits=".2f"),
    _share("label_accuracy", "label accuracy", "share of the batch's labels that were found", truth="labels"),
    _share("exact", "exact", "share of images with no pixel off by 1e-3"),
    Metric(
        "false_images",
        "false images",
        "handed in and equal to none of the batch, per true image",
        "share",
        "lower",
        digits=".2f",
    ),
    _share("above20", "PSNR > 20 dB", "share of images"),
    _share("above30", "PSNR > 30 dB", "share of images"),
    _share("success_1e-2", "MSE < 1e-2", "share of images"),
    _share("success_1e-3", "MSE < 1e-3", "share of images"),
    _share("success_1e-4", "MSE < 1e-4", "share of images"),
    _share("retrieval", "retrieved", "share of images told by their match from all public ones"),
    Metric("oracle_cosine", "abs cos (oracle)", "median |cosine|, order and sign decided by the truth", digits=".2f"),
    _share("evaluator_accuracy", "identified", "share that an independent classifier takes for the target", "classes"),
    _share("evaluator_top5", "among first five", "share with the target among the evaluator's five first", "classes"),
    _share("lineup_accuracy", "line-up", "share named the target by an evaluator that may reject none", "classes"),
    _of_class("evaluator_confidence", "p (evaluator)", "the evaluator's probability of the target"),
    _of_class(
        "target_confidence", "p (attacked)", "the attacked model's own; what it has above p (evaluator) fools it"
    ),
    _of_class("nearest_victim_feature", "to victim (features)", _FEATURES, "lower"),
    _of_class("nearest_public_feature", "to public (features)", _FEATURES),
    _share("nearer_victim", "nearer to victim", "share of images: in pixels, than any public image", "classes"),
    Metric("nearest_victim_mse", "to victim", "MSE to the nearest victim", better="lower", truth="classes"),
    Metric("nearest_public_mse", "to public", "MSE to the nearest public image", truth="classes"),
    _of_class("class_mean_ssim", "SSIM to mean", "to the mean image of the class"),
    _of_class("class_mean_rank", "rank of mean", "of the own class's mean by SSIM; 1: the most alike", "lower"),
    Metric("diversity", "diversity", "mean RMSE over pairs; 0 for copies of one image", truth="classes"),
    _cost("seconds", "seconds", "of the attack alone, on the device's clock"),
    _cost("evaluations", "evaluations", "of the victim's gradient; images, where a black box is queried"),
    _cost("seconds_to_20", "seconds to 20 dB", "until the mean PSNR reaches 20 dB; inf: never", capped=True),
    _cost("evaluations_to_20", "evaluations to 20 dB", "until the mean PSNR reaches 20 dB; inf: never", capped=True),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def _those(*truths: str) -> tuple[str, ...]:
    return tuple(name for name, metric in METRICS.items() if metric.truth in truths)


QUALITY = _those("images", "labels", "classes")  # what an attack is ranked by
COSTS = _those("cost")
MEASURED = tuple(name for name in METRICS if name not in ("seconds", "evaluations"))  # columns that judges fill
RATES = tuple(name for name, metric in METRICS.items() if metric.average == "share")
REACHED = tuple(name for name, metric in METRICS.items() if metric.capped)


def judged_against(name: str) -> str:
    """The kind of truth that judges a board ranked by this metric; images, where that is a cost."""
    return METRICS[name].truth if name in QUALITY else "images"


def lower_is_better(name: str) -> bool:
    return METRICS[name].better == "lower"


def heading(name: str) -> str:
    """A metric's name for readers; of a column that is no metric, its own in words."""
    return METRICS[name].heading if name in METRICS else name.replace("_", " ")
