"""How cost grows with image side, batch and network -> `results/<scale>/growth.csv` and `growth.png`."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

import pandas as pd
import pytest
from growth import LONGEST, Point, measure

from leakboard.board.cost_figures import growth
from leakboard.record.trial_lines import write_text
from leakboard.run import machine

ORDER = ["axis", "network", "width", "execution", "side", "batch"]
ALONG = ("lenet_sigmoid", "cnn", "resnet20")  # along image side and batch
SIZES = [("lenet_sigmoid", None), ("cnn", None), ("convnet", 16), ("convnet", 32), ("convnet", 64)]
SIZES += [("resnet20", None), ("resnet20", 32), ("resnet18", 64)]
COMPILED = ("lenet_sigmoid", "cnn")  # those that compile within a minute


def points() -> Iterator[tuple[str, Point]]:
    """(axis of the figure, point)"""
    for name in ALONG:
        for kind in ("loop", "compiled") if name in COMPILED else ("loop",):
            yield from (("side", Point(name, side=side, execution=kind)) for side in (16, 32, 64))
            yield from (("batch", Point(name, batch=batch, execution=kind)) for batch in (1, 4, 16))
    for name, width in SIZES:
        for kind in ("loop", "compiled") if name in COMPILED else ("loop",):
            yield "parameters", Point(name, width, execution=kind)


DISTINCT = list(dict.fromkeys(point for _, point in points()))


@pytest.fixture(scope="module")
def lines(results, device) -> Iterator[dict[Point, dict]]:
    """What was measured by point; at the end it is written, beside the lines of other kinds of devices."""
    found: dict[Point, dict] = {}
    yield found
    if not found:
        return
    about, path = machine.describe(device), results / "growth.csv"
    told = {"device": device.type, "device_name": about["device"], "torch": about["torch"]}
    rows = [{"axis": axis, **asdict(p), **found[p], **told} for axis, p in points() if p in found]
    whole = {"width": "Int64", "peak_bytes": "Int64"}
    new = pd.DataFrame(rows).astype(whole)
    new["commit"] = machine.commit()[0]
    if path.exists():
        old = pd.read_csv(path, dtype=whole, keep_default_na=False, na_values={name: [""] for name in whole})
        new = pd.concat([old, new], ignore_index=True).drop_duplicates([*ORDER, "device"], keep="last")
    table = new.sort_values(["device", *ORDER], kind="stable")
    write_text(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    growth(results / "growth.png", table[table["device"] == device.type])


@pytest.mark.parametrize("point", DISTINCT, ids=str)
def test_growth(point, lines):
    """Each point in a new process: what another one left in memory does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        got: dict[str, Any] = alone.submit(measure, point).result()
    if point.execution == "compiled" and got["warm_up_seconds"] > LONGEST:
        pytest.skip(f"took {got['warm_up_seconds']:.0f} s to compile")
    lines[point] = got
