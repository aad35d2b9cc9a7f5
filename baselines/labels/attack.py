"""Label inference: every rule of the field that reads the labels of a batch off the last layer, and nothing else."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from leakboard.attack import labels
from leakboard.threat import Gradient, ModelUpdate, Reconstruction


@dataclass(frozen=True)
class LabelInference:
    """rule: idlg, yin, row_sums, bias, dlf, llg, llg_star; see `attack/labels.py`.

    dlf is row_sums, and bias the bias form, with the model's outputs interpolated along the local steps.
    dummies: how many images stand in for the client's; public ones where there are any, uniform noise otherwise.
    """

    rule: Literal["idlg", "yin", "row_sums", "bias", "dlf", "llg", "llg_star"] = "dlf"
    dummies: int = 64

    def skips(self, benchmark) -> str | None:
        return "the rule reads one label from one image" if self.rule == "idlg" and benchmark.batch > 1 else None

    def reconstruct(self, seen: Gradient | ModelUpdate, rng: torch.Generator) -> Reconstruction:
        return Reconstruction(torch.empty(0, *seen.shape[1:]), self._infer(seen, rng))

    def _infer(self, seen: Gradient | ModelUpdate, rng: torch.Generator) -> Tensor:
        if self.rule == "idlg":
            return labels.idlg_label(seen)
        if self.rule == "yin":
            return labels.smallest_rows(seen)
        if self.rule == "llg":
            return labels.llg_labels(seen)
        dummies = self._dummies(seen, rng)
        if self.rule == "row_sums":
            return labels.row_sum_labels(seen, dummies)
        if self.rule == "bias":
            return labels.bias_labels(seen, dummies, along=True)
        if self.rule == "dlf":
            return labels.row_sum_labels(seen, dummies, along=True)
        return labels.llg_labels(seen, dummies)

    def _dummies(self, seen: Gradient | ModelUpdate, rng: torch.Generator) -> Tensor:
        if seen.public is not None:
            order = torch.randperm(len(seen.public.images), generator=rng)
            return seen.public.images[order[: self.dummies].to(seen.device)]
        return torch.rand(self.dummies, *seen.shape[1:], generator=rng).to(seen.device)
