"""Scoring: matching, metrics, evaluators. Knows the truth, so no attack may import it."""

from .curve import Snapshot, curve, time_to
from .evaluators import class_scores
from .matching import match, mse_matrix, stand_ins
from .metrics import legacy_global_ssim, lpips_squeeze, maximum_error, mse, psnr, ssim, ssim_window
from .score import Scores, score

__all__ = [
    "Scores",
    "Snapshot",
    "class_scores",
    "curve",
    "legacy_global_ssim",
    "lpips_squeeze",
    "match",
    "maximum_error",
    "mse",
    "mse_matrix",
    "psnr",
    "score",
    "ssim",
    "ssim_window",
    "stand_ins",
    "time_to",
]
