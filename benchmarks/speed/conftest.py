"""What the speed suite shares: the scale, the device, and the tables that it leaves in `results/<scale>/`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from timing import places

from leakboard import config
from leakboard.record import speed
from leakboard.run import machine
from leakboard.run.execution import GROUPS, LOOP, Execution


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", choices=config.SCALES, default="paper", help="quick or paper")
    parser.addoption("--into", type=Path, help="where the tables go, if not into the committed results")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    machine_info["leakboard"] = machine.describe(machine.device_of("auto"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per benchmark, paper and execution; no group is larger than the benchmark."""
    if "place" not in metafunc.fixturenames:
        return
    scale, items = metafunc.config.getoption("--scale"), []
    for run, paper in places(scale):
        for one in executions():
            if one.group <= config.benchmark(run, scale).trials:
                items.append(pytest.param((run, paper), one, id=f"{run}-{paper}-{one.kind}-x{one.group}"))
    metafunc.parametrize(("place", "execution"), items)


def executions() -> Iterator[Execution]:
    """The loop first, then what it costs least to find out about."""
    yield LOOP
    yield from (Execution("stacked", group) for group in GROUPS if group > 1)
    yield from (Execution("compiled", group) for group in GROUPS)
    if torch.cuda.is_available():
        yield from (Execution("cuda_graph", group) for group in GROUPS)


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> config.Scale:
    return request.config.getoption("--scale")


@pytest.fixture(scope="session")
def results(request: pytest.FixtureRequest, scale: config.Scale) -> Path:
    return request.config.getoption("--into") or config.root() / "results" / scale


@pytest.fixture(scope="session")
def device() -> torch.device:
    machine.settle()
    return machine.device_of("auto")


@pytest.fixture(scope="session")
def measured(scale: config.Scale, results: Path) -> Iterator[list[speed.Measured]]:
    """Rows to be added to; at the end they take their places in `speed.csv`, one of each place chosen."""
    rows: list[speed.Measured] = []
    yield rows
    new: list[speed.Measured] = []
    for (run, paper, _), group in itertools.groupby(sorted(rows, key=lambda row: row.place), lambda row: row.place):
        question = config.benchmark(run, scale)
        try:
            new += speed.choose(list(group), question.trials * question.budget)
        except ValueError as error:
            print(f"\n{run} {paper} stays as it was: {error}")
    if new:
        speed.write(results / "speed.csv", speed.merged(speed.read(results / "speed.csv"), new))
