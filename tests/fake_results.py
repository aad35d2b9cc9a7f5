"""A small checkout with invented trial lines: two papers and the controls on one benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from leakboard import config
from leakboard.board import verdict
from leakboard.record import aggregate, trial_lines
from leakboard.record.results import Results

RUN = "lenet_toy_gradient"
PAPERS = {"toy": ("plain", "better"), "rival": ("only",), "controls": ("noise",)}
LEVEL = {"plain": 0.004, "better": 0.0004, "only": 0.002, "noise": 0.09}
PUBLISHED = {
    "paper": "toy",
    "citation": "c",
    "numbers": [
        {"run": RUN, "variant": variant, "metric": "psnr", "value": value, "tolerance": 2.0, "where": "table | 1",
         "provenance": "verified", "gates": True, "scale": "quick", "cause": cause}
        for variant, value, cause in (
            ("plain", 24.0, ""), ("better", 13.0, ""), ("absent", 10.0, ""), ("plain", 50.0, "why"),
        )
    ],
}  # fmt: skip


def line(paper: str, variant: str, trial: int, mse: float, **more: object) -> dict[str, object]:
    """One trial line, under the present key of its variant."""
    question = config.benchmark(RUN, "quick")
    key = trial_lines.present_keys(paper, question).get(variant, ("other", "0", "0", 0))
    psnr = min(-10 * math.log10(mse), 100.0)
    return {
        "attack": paper, "variant": variant, "benchmark": RUN, "scale": "quick", "benchmark_version": 1,
        "attack_version": 1, "trial": trial, "seed": trial, "status": "ok", "device_kind": "cpu", "execution": "loop",
        "device": "a processor", "torch": "2.12", "threads": 1, "commit": "abc", "victim_sha": f"v{trial}",
        "seconds": 1.0 + trial, "evaluations": 100.0, "peak_bytes": 1e6, "mse": mse, "psnr": psnr, "ssim": 0.5,
        "mse_each": [mse], "psnr_each": [psnr], "exact": 0.0, "label_accuracy": 1.0,
        **{f"above{limit}": float(psnr > limit) for limit in (20, 30)},
        **{f"success_{limit}": float(mse < float(limit)) for limit in ("1e-2", "1e-3", "1e-4")},
        "seconds_to_20": 0.5 if psnr > 20 else math.inf, "evaluations_to_20": 50 if psnr > 20 else math.inf,
        **dict(zip(trial_lines.KEY, key, strict=True)), **more,
    }  # fmt: skip


def trials(paper: str, variant: str, n: int = 4, **more: object) -> list[dict[str, object]]:
    """n trial lines of one variant, their MSE around its `LEVEL`; `more` stands in each of them."""
    level = LEVEL.get(variant, 0.001)
    return [{**line(paper, variant, trial, level * (1 + trial / 10)), **more} for trial in range(n)]


def store(paper: str, lines: Sequence[dict[str, object]], top: Path | None = None) -> Path:
    """Write the lines as that paper's results, with the files derived from them."""
    results = Results.at("quick", top)
    folder = results.folder(paper, RUN)
    trial_lines.write(folder / "trials.csv", trial_lines.frame(lines))
    aggregate.summarise(results, paper, RUN)
    return folder


def checkout(
    root: Path, knows: Sequence[str] = ("labels", "batch_size"), metrics: Sequence[str] = ("psnr", "ssim")
) -> None:
    """The content folders of a suite at `root`; results come from `store`."""
    common = {
        "version": 1, "seed": 0, "data": {"name": "toy"}, "budget": 100, "network": {"name": "lenet_sigmoid"},
        "threat": {"knows": list(knows)},
    }  # fmt: skip
    about = {"question": "How sharp? Is it | sharp?", "metrics": list(metrics)}
    (root / "benchmarks").mkdir(parents=True)
    content = {"about": about, "common": common, "quick": {"trials": 4}, "paper": {"trials": 4}}
    (root / "benchmarks" / f"{RUN}.yaml").write_text(yaml.safe_dump(content))
    for paper, variants in PAPERS.items():
        folder = root / "baselines" / paper
        folder.mkdir(parents=True)
        (folder / "attack.py").write_text(f'"""{paper}"""\n')
        params = {
            "version": 1,
            "title": f"The {paper} paper",
            "on": {RUN: {}},
            "variants": {v: {} for v in (*variants, "absent")},
        }
        more = {"controls": [*variants, "absent"]} if paper == "controls" else {}
        (folder / "params.yaml").write_text(yaml.safe_dump({**params, **more}))
    (root / "baselines/toy/published.yaml").write_text(yaml.safe_dump(PUBLISHED))


def everything(top: Path | None = None) -> None:
    """Results of all papers, with verdicts."""
    for paper, variants in PAPERS.items():
        store(paper, [one for variant in variants for one in trials(paper, variant)], top)
    verdict.write_verdicts(Results.at("quick", top))


def curve(variants: Sequence[str], trials: int = 5, steps: int = 7) -> pd.DataFrame:
    """Lines of a `curve.csv`: PSNR rises with every doubling of the evaluations."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"variant": variant, "trial": trial, "device_kind": "cpu", "step": 2**power, "evaluations": 2**power + 1,
         "seconds": 0.1 * 2**power, "loss": 1 / 2**power, "mse": 0.1, "psnr": 5.0 + rate * power + rng.random()}
        for rate, variant in enumerate(variants, start=1) for trial in range(trials) for power in range(steps)
    )  # fmt: skip
