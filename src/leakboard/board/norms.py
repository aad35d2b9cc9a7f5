"""Quality by the size of the victim's gradient: where it almost vanishes there is almost nothing to match."""

from __future__ import annotations

from collections.abc import Iterator

from leakboard import config
from leakboard.record.results import Results

FEWEST = 6  # trials from which two halves say something


def by_gradient_norm(results: Results, run: str) -> str:
    """One sentence: mean PSNR of every attack over the half of the trials with the smaller gradient, and the other."""
    halves = list(_halves(results, run))
    if not halves:
        return ""
    rows = "; ".join(f"{name} {small:.1f} and {large:.1f} dB" for name, _, small, large in halves)
    return f"Half of the victims' gradients have a norm below {halves[0][1]:.3g}; mean PSNR there and above: {rows}."


def _halves(results: Results, run: str) -> Iterator[tuple[str, float, float, float]]:
    known = config.controls()
    for paper in config.papers_on(run):
        lines = results.current_lines(paper, run).dropna(subset=["psnr", "gradient_norm"])
        for (variant, _), trials in lines.groupby(["variant", "device_kind"]):
            if (paper, variant) in known:
                continue
            norm = trials["gradient_norm"]
            if len(trials) >= FEWEST and norm.min() < norm.max():
                small = norm < norm.median()
                psnr = trials["psnr"]
                yield (
                    f"{paper} / {variant}",
                    float(norm.median()),
                    float(psnr[small].mean()),
                    float(psnr[~small].mean()),
                )
