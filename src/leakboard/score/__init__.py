"""Scoring: matching, metrics, evaluators. Knows the truth, so no attack may import it."""

from leakboard.score.assignment import match, mse_matrix, stand_ins
from leakboard.score.classes import ClassTruth, class_scores
from leakboard.score.curve import Snapshot, curve, time_to
from leakboard.score.images import Scores, score
from leakboard.score.judges import Judged, Truth, judge_of, nothing
from leakboard.score.similarity import legacy_global_ssim, lpips_squeeze, maximum_error, mse, psnr, ssim, ssim_window

__all__ = [
    "ClassTruth",
    "Judged",
    "Scores",
    "Snapshot",
    "Truth",
    "class_scores",
    "curve",
    "judge_of",
    "legacy_global_ssim",
    "lpips_squeeze",
    "match",
    "maximum_error",
    "mse",
    "mse_matrix",
    "nothing",
    "psnr",
    "score",
    "ssim",
    "ssim_window",
    "stand_ins",
    "time_to",
]
