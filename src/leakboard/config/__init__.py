"""The content folders as typed objects: `benchmarks/*.yaml`, `baselines/*/params.yaml` and `published.yaml`.

Everything that changes a number is declared here and nothing else is accepted: an unknown key is an error that names
the file and the key.
"""

from leakboard.config.benchmark import SCALES, Benchmark, Scale
from leakboard.config.checkout import root
from leakboard.config.federated import Federation
from leakboard.config.files import (
    CONTROLS,
    benchmark,
    benchmark_names,
    board_names,
    controls,
    like,
    paper_names,
    papers_on,
    params,
    published,
)
from leakboard.config.hashes import digest
from leakboard.config.papers import Claim, Params, Published, PublishedNumber, Row
from leakboard.config.sections import ConfigError, Images, Network, Threat
from leakboard.config.trainings import Training

__all__ = [
    "CONTROLS",
    "SCALES",
    "Benchmark",
    "Claim",
    "ConfigError",
    "Federation",
    "Images",
    "Network",
    "Params",
    "Published",
    "PublishedNumber",
    "Row",
    "Scale",
    "Threat",
    "Training",
    "benchmark",
    "benchmark_names",
    "board_names",
    "controls",
    "digest",
    "like",
    "paper_names",
    "papers_on",
    "params",
    "published",
    "root",
]  # fmt: skip
