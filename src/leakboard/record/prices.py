"""What defences cost, as it was recorded beside the victims: `victims/<benchmark>/price.json`. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass

from leakboard.config import Benchmark, like
from leakboard.config.texts import text_of, there
from leakboard.record.cells import RecordError
from leakboard.record.results import Results

PRICE = "price.json"


@dataclass(frozen=True)
class Price:
    """accuracy: of the network trained under the defence, on so many images, after so many steps. epsilon: of DP-SGD
    at `delta`, None where it is no part of the defence, or promises nothing.
    """

    accuracy: float
    images: int
    steps: int
    epsilon: float | None = None
    delta: float | None = None


def price_of(results: Results, benchmark: Benchmark) -> Price | None:
    """What is recorded of this benchmark's own recipe; None where nothing is, or of another recipe."""
    path, recipe = results.victim(benchmark.name) / PRICE, benchmark.priced
    if recipe is None or not there(path):
        return None
    try:
        found = json.loads(text_of(path, RecordError))
        made, numbers = found.pop("recipe"), {key: found[key] for key in ("accuracy", "images", "steps")}
        price = Price(**numbers, epsilon=found.get("epsilon"), delta=found.get("delta"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path}: expected the record of a price, with accuracy, images and steps; {error!r}"
        ) from None
    return price if made == recipe.hash else None


def without_defence(results: Results, benchmark: Benchmark) -> Price | None:
    """The price of the benchmark that this one is like, where that has no defence."""
    other = like(benchmark.name)
    if other is None or results.benchmark(other).defence:
        return None
    return price_of(results, results.benchmark(other))
