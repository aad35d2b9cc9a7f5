"""The table of executions: what is chosen, how runs merge, how it is read, and groups of trials. Nothing is timed."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fake_results as fake
import pandas as pd
import pytest

from leakboard import config
from leakboard.attack import contract
from leakboard.board import cost_figures, readable, report, tables
from leakboard.config import SCALES, Scale
from leakboard.record import speed, trial_lines
from leakboard.record.results import Results
from leakboard.run import execution
from leakboard.run.execution import LOOP, Execution

BASE = speed.Measured(
    benchmark="b", attack="a", device="cpu", execution="loop", stacked=1, seconds_per_step=0.01,
    cpu_seconds_per_step=0.01, ratio_to_loop=1.0, ratio_to_floor=1.25, warm_up_seconds=0.0, peak_bytes=10**9,
    device_name="a processor", torch="2.12", commit="abc",
)  # fmt: skip


def faster(kind: str, group: int, ratio: float, warm_up: float = 0.0, **more) -> speed.Measured:
    seconds = BASE.seconds_per_step / ratio
    return replace(
        BASE, execution=kind, stacked=group, ratio_to_loop=ratio, seconds_per_step=seconds, warm_up_seconds=warm_up,
        **more,
    )  # fmt: skip


def winner(*rows: speed.Measured, evaluations: int = 1000) -> str:
    (best,) = [row for row in speed.choose(rows, evaluations) if row.chosen]
    return best.label


def test_the_cheapest_for_the_whole_benchmark_is_chosen():
    stacked, compiled = faster("stacked", 16, 2.0), faster("compiled", 16, 8.0, warm_up=30.0)
    assert winner(BASE, stacked, compiled, evaluations=1000) == "stacked x16"  # 30 s of compilation for 10 s of work
    assert winner(BASE, stacked, compiled, evaluations=100_000) == "compiled x16"


def test_the_loop_is_chosen_where_nothing_is_faster_or_not_by_enough():
    assert winner(BASE) == "loop"
    assert winner(BASE, faster("stacked", 4, 0.5)) == "loop"
    assert winner(BASE, faster("stacked", 4, 1.04)) == "loop"
    assert winner(BASE, faster("stacked", 4, 1.05)) == "stacked x4"
    assert winner(BASE, faster("compiled", 1, 10.0, warm_up=60.0), evaluations=100) == "loop"


def test_of_equals_the_first_is_chosen_and_the_loop_before_all():
    assert winner(BASE, faster("stacked", 4, 2.0), faster("stacked", 16, 2.0)) == "stacked x4"
    assert winner(BASE, faster("stacked", 4, 2.0), evaluations=0) == "loop"
    assert winner(replace(BASE, chosen=True), faster("stacked", 4, 2.0, chosen=True)) == "stacked x4"


@pytest.mark.parametrize(
    "rows", [[], [faster("stacked", 4, 2.0)], [BASE, BASE], [BASE, faster("stacked", 4, 2, device="cuda")]]
)
def test_a_choice_needs_the_loop_once_and_one_place(rows):
    with pytest.raises(ValueError, match="expected one"):
        speed.choose(rows, 1000)


def test_what_is_measured_anew_replaces_its_place_and_nothing_else(tmp_path):
    cpu, cuda = [BASE, faster("stacked", 4, 2.0, chosen=True)], [replace(BASE, device="cuda", chosen=True)]
    other = [replace(BASE, attack="z", chosen=True)]
    both = speed.merged(cpu, [*other, *cuda])
    assert speed.merged([*cuda, *other], cpu) == both and len(both) == 4
    again = speed.merged(both, [replace(BASE, chosen=True)])
    assert [row.label for row in again if row.place == BASE.place] == ["loop"]
    assert [row for row in again if row.place != BASE.place] == [*cuda, *other]


def test_rows_are_read_as_they_were_written(tmp_path):
    rows = [BASE, faster("compiled", 64, 3.0, warm_up=1 / 3, chosen=True)]
    speed.write(tmp_path / "speed.csv", rows)
    text = (tmp_path / "speed.csv").read_text()
    assert "0.333333," in text and text.splitlines()[0] == ",".join(speed.COLUMNS)
    speed.write(tmp_path / "speed.csv", speed.read(tmp_path / "speed.csv"))
    assert (tmp_path / "speed.csv").read_text() == text
    assert speed.read(tmp_path / "none.csv") == []
    (tmp_path / "speed.csv").write_text(text.replace(",true,", ",yes,"))
    with pytest.raises(trial_lines.RecordError, match=r"speed\.csv:3"):
        speed.read(tmp_path / "speed.csv")


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one benchmark `b`."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "baselines").mkdir()
    text = (
        "about: {question: q}\n"
        "common: {version: 1, seed: 0, data: {name: toy}, network: {name: lenet_sigmoid}, trials: 30, budget: 9,"
        " threat: {knows: [batch_size, public_data]}}"
    )
    (tmp_path / "benchmarks" / "b.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_the_runner_reads_what_was_chosen(suite):
    rows = [BASE, faster("stacked", 16, 2.0, chosen=True), replace(BASE, attack="z", device="cuda", chosen=True)]
    speed.write(speed.path("quick"), rows)
    question = config.benchmark("b", "quick")
    assert execution.chosen("a", question, "cpu") == Execution("stacked", 16)
    assert execution.chosen("a", question, "cuda") == LOOP
    assert execution.chosen("z", question, "cuda") == LOOP
    assert speed.seconds_per_step("quick", "b", "a", "cpu") == 0.005
    assert speed.shown("quick")["execution"].tolist() == ["stacked x16", "loop"]


def test_without_a_table_the_loop_runs_and_boards_say_nothing(suite):
    assert execution.chosen("a", config.benchmark("b", "quick"), "cpu") == LOOP
    assert speed.shown("quick").empty and speed.seconds_per_step("quick", "b", "a", "cpu") != 0.005


@pytest.mark.parametrize("cell", ["turbo,4", "loop,4", "stacked,none", "stacked,0"])
def test_a_row_that_names_no_execution_names_file_and_line(suite, cell):
    path = speed.path("quick")
    speed.write(path, [BASE, replace(BASE, chosen=True)])
    first, loop, chosen = path.read_text().splitlines()
    path.write_text("\n".join([first, loop, chosen.replace("loop,1", cell)]) + "\n")
    with pytest.raises(trial_lines.RecordError, match=r"speed\.csv:3"):
        execution.chosen("a", config.benchmark("b", "quick"), "cpu")


@pytest.mark.parametrize("size", [1, 4, 16, 64])
@pytest.mark.parametrize("count", [1, 4, 30, 100])
def test_groups_part_the_trials(size, count):
    how = Execution("stacked", size)
    groups = how.groups(range(count), count)
    assert [trial for group in groups for trial in group] == list(range(count))
    assert all(len(group) == size for group in groups[:-1]) and len(groups[-1]) == (count % size or size)


def test_a_trial_runs_in_the_same_group_whatever_is_asked_for():
    how = Execution("stacked", 16)
    assert how.groups([17], 30) == how.groups([29, 16], 30) == [range(16, 30)]
    assert how.groups([3, 17], 30) == how.groups(range(30), 30)
    assert how.members(30, 30) == range(30, 31), "beyond the benchmark a trial runs alone"
    assert LOOP.groups([5, 2], 30) == [range(2, 3), range(5, 6)]


def test_boards_show_a_step_and_its_execution_where_they_are_known():
    row = {name: float("nan") for name in tables.COLUMNS} | {
        "paper": "a", "variant": "v", "rank": "1", "labels": "given", "n": 4, "failures": 0, "device_kind": "cpu",
        "execution": "stacked x16", "seconds_per_step": 0.00123, "note": "",
    }  # fmt: skip
    question = config.benchmark(config.benchmark_names()[0], "quick")
    known = readable.shown(pd.DataFrame([row]), question)
    assert known[["ms per step", "execution"]].to_numpy().tolist() == [["1.23", "stacked x16"]]
    plain = readable.shown(pd.DataFrame([row | {"execution": "loop", "seconds_per_step": float("nan")}]), question)
    assert not {"ms per step", "execution"} & set(plain.columns)


def test_the_picture_of_growth_is_a_picture(tmp_path):
    sizes = {"side": 16, "batch": 1, "parameters": 1000}
    lines = [
        {"axis": axis, "network": name, "execution": kind, **sizes, axis: sizes[axis] * step,
         "seconds_per_step": 0.01 * step, "peak_bytes": None if kind == "compiled" else 1e6 * step}
        for axis in sizes for name in ("cnn", "lenet") for kind in ("loop", "compiled") for step in (1, 2, 4)
    ]  # fmt: skip
    for name in ("one.png", "two.png"):
        cost_figures.growth(tmp_path / name, pd.DataFrame(lines))
    content = (tmp_path / "one.png").read_bytes()
    assert content.startswith(b"\x89PNG") and content == (tmp_path / "two.png").read_bytes()


def test_page_and_leaderboard_tell_the_speed(tmp_path, monkeypatch):
    fake.checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    fake.everything()
    assert 'id="speed"' not in report.report(Results.at("quick")).read_text()
    here = replace(BASE, benchmark=fake.RUN, attack="toy", chosen=True)
    speed.write(speed.path("quick"), [here, faster("stacked", 4, 2.0, attack="rival", benchmark=fake.RUN, chosen=True)])
    speed.path("quick").with_name("growth.png").write_bytes(b"a picture")
    page = report.report(Results.at("quick")).read_text()
    assert all(part in page for part in ('id="speed"', "stacked x4", ">5<", "data:image/png;base64,YSBwaWN0dXJl"))
    steps = tables.leaderboard(Results.at("quick")).groupby("paper")["seconds_per_step"].first()
    assert (steps["toy"], steps["rival"]) == (0.01, 0.005) and "controls" not in steps.dropna()


@pytest.fixture(params=SCALES)
def committed(request) -> Scale:
    if not speed.path(request.param).exists():
        pytest.skip(f"`make speed SCALE={request.param}` has not run")
    return request.param


def test_one_execution_of_every_place_is_chosen_and_none_slower_than_the_loop(committed):
    rows = speed.read(speed.path(committed))
    for place in {row.place for row in rows}:
        (best,) = [row for row in rows if row.place == place and row.chosen]
        assert best.ratio_to_loop >= 0.95, place
        Execution(best.execution, best.stacked)


def test_every_search_was_measured_and_nothing_else_stands_there(committed):
    with speed.path(committed).open(newline="") as file:
        measured = {(row["benchmark"], row["attack"]) for row in csv.DictReader(file)}
    searches = set()
    for paper in config.paper_names():
        if hasattr(contract.load(config.root() / "baselines" / paper / "attack.py"), "reconstruct_many"):
            asked = [config.benchmark(name, committed) for name in config.params(paper).boards_at(committed)]
            searches |= {(speed.measured_on(one.name), paper) for one in asked if one.budget > 1}
    assert measured == searches


def test_an_item_of_the_suite_measures_and_writes_its_table(tmp_path):
    """What `make speed ONLY=...` does, into another folder; the table is read as the committed one is."""
    suite_ = ["benchmarks/speed/test_speed.py", "--scale", "quick", "--into", str(tmp_path)]
    chosen = ["-k", "lenet_mnist_gradient-idlg-loop or convnet_cifar10_update-ig-loop", "-q", "-p", "no:cacheprovider"]
    call = [sys.executable, "-m", "pytest", *suite_, *chosen]
    ran = subprocess.run(call, cwd=config.root(), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = speed.read(tmp_path / "speed.csv")
    assert {row.place for row in rows} == {
        ("lenet_mnist_gradient", "idlg", "cpu"), ("convnet_cifar10_update", "ig", "cpu"),
    }  # fmt: skip
    assert all(row.chosen and row.seconds_per_step > 0 and row.ratio_to_floor > 0 for row in rows)
