"""Quality against a factor of the federation: which boards a line is of, which rows it has, and how it is drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pandas as pd
import pytest
from toys import ROOT

from leakboard import config
from leakboard.board import factors, figures, report
from leakboard.record import trial_lines
from leakboard.record.results import Results

BASE = "lenet_cifar10_sequence"
BOARDS = {
    "clients": {2: "_k2", 4: "", 8: "_k8", 16: "_k16"},
    "images a client": {1: "_n1", 4: "", 16: "_n16"},
    "local steps": {1: "", 3: "_tau3"},
    "rounds": {1: "", 3: "_rounds3"},
}
ELSEWHERE = ("trained", "labels", "noise_0_000001", "noise_0_00001", "clipping_0_001", "secure")


def lines(self, paper, run):
    """Two trials of peer's rows on the boards of all lines; of `restored` none at eight clients or more."""
    if paper != "peer" or run not in {f"{BASE}{twist}" for boards in BOARDS.values() for twist in boards.values()}:
        return trial_lines.frame()
    shared = {"attack": paper, "benchmark": run, "status": "ok", "device_kind": "cpu", "execution": "loop"}
    shared |= dict.fromkeys(("benchmark_version", "attack_version", "engine", "seed"), 1)
    rows = ["raw"] if run.endswith(("k8", "k16")) else ["raw", "restored"]
    level = 30.0 - config.benchmark(run, "quick").batch / 4
    return trial_lines.frame(
        {**shared, "variant": row, "trial": n, "victim_sha": f"v{n}", "psnr": level + n, "retrieval": 0.5}
        for row in rows
        for n in range(2)
    )


@pytest.fixture
def results(monkeypatch) -> Results:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Results, "current_lines", lines)
    return Results.at("quick")


def told(row: str, places: dict[str, tuple[float, ...]]) -> pd.DataFrame:
    """Made-up points of one row."""
    shared = {"row": row, "metric": "psnr", "low": 9.0, "high": float("nan"), "n": 2}
    points = [{**shared, "factor": factor, "x": x, "score": 10.0 + x} for factor, at in places.items() for x in at]
    return pd.DataFrame(points, columns=factors.COLUMNS)


def test_boards_of_a_line_differ_by_their_factor_alone(monkeypatch):
    monkeypatch.chdir(ROOT)
    for scale in config.SCALES:
        results = Results.at(scale)
        found = factors.along(results, results.benchmark(BASE))
        named = {factor: {x: board.name for x, board in boards} for factor, boards in found.items()}
        assert named == {key: {x: BASE + twist for x, twist in boards.items()} for key, boards in BOARDS.items()}
        assert all([x for x, _ in boards] == sorted(BOARDS[factor]) for factor, boards in found.items())
        drawn = {board.name for boards in found.values() for _, board in boards}
        family = {name for name in config.board_names() if config.like(name) == BASE}
        assert {f"{BASE}_{twist}" for twist in ELSEWHERE} <= family - drawn


def test_a_search_of_more_steps_or_two_factors_at_once_are_other_questions(results, monkeypatch):
    base, other = results.benchmark(BASE), results.benchmark(f"{BASE}_tau3")
    both = other.federation.model_copy(update={"rounds": 3})
    asked = [
        {"budget": base.budget},
        {"federation": both, "budget": 900},
        {"seed": 1},
        {"batch": 24},
        {"defence": {"x": {}}},
    ]
    for change in [{}, *asked]:
        known = {BASE: base, other.name: other.model_copy(update=change)}
        monkeypatch.setattr(Results, "benchmark", lambda self, name, known=known: known.get(name, base))
        assert ("local steps" in factors.along(results, base)) == (not change), change


def test_what_a_server_sees_is_of_one_client_unless_messages_are_summed():
    peers = config.benchmark("lenet_cifar10_update_secure_3", "quick")
    one = config.benchmark("cnn3_cifar100_update_e10b10", "quick")
    assert factors.factors(peers)["images a client"] == 4 and factors.factors(one)["images a client"] == one.batch
    spec = one.federation
    assert factors.factors(one)["local steps"] == spec.steps * spec.epochs * -(-one.batch // (spec.batch or one.batch))


def test_rows_without_results_or_on_one_board_alone_are_left_out(results):
    rows = factors.by_factor(results, results.benchmark(BASE))
    psnr = rows[rows["metric"] == "psnr"]
    at = {key: sorted(points["x"]) for key, points in psnr.groupby(["row", "factor"])}
    raw = {("peer / raw", factor): sorted(boards) for factor, boards in BOARDS.items()}
    restored = {**BOARDS, "clients": [2, 4]}  # no lines of it were made up for more
    assert at == raw | {("peer / restored", factor): sorted(numbers) for factor, numbers in restored.items()}
    assert len(rows) == 2 * len(psnr) and set(rows["metric"]) == {"psnr", "retrieval"}
    score = psnr[(psnr["row"] == "peer / raw") & (psnr["factor"] == "clients")].set_index("x")["score"]
    assert score.to_dict() == pytest.approx({2: 29.5, 4: 27.5, 8: 23.5, 16: 15.5})


def test_a_row_that_is_set_otherwise_on_a_board_is_another(results, monkeypatch):
    settings = factors._settings

    def otherwise(board):
        more = {"steps": 999} if board.name.endswith("_k8") else {}
        return {row: {**said, **more} for row, said in settings(board).items()}

    monkeypatch.setattr(factors, "_settings", otherwise)
    rows = factors.by_factor(results, results.benchmark(BASE))
    assert sorted(set(rows.loc[rows["factor"] == "clients", "x"])) == [2, 4, 16]


@pytest.mark.parametrize(
    "name",
    ["lenet_cifar10_sequence_k8", "lenet_cifar10_gradient_none", "tanh_mnist_participation", "lenet_mnist_gradient"],
)
def test_a_board_without_such_a_family_has_no_rows_and_no_figure(results, name):
    rows = factors.by_factor(results, results.benchmark(name))
    assert rows.empty and list(rows.columns) == factors.COLUMNS
    assert report._factors(results, results.benchmark(name)) == []


def test_a_row_has_one_colour_in_all_panels_and_one_place_in_the_legend(monkeypatch):
    monkeypatch.chdir(ROOT)
    seen = []
    monkeypatch.setattr(
        figures, "line", lambda axes, points, colour, label, **look: seen.append((label, colour, points))
    )
    rows = pd.concat(
        [told("toy / one", {"clients": (2, 16)}), told("toy / two", {"clients": (2, 4), "rounds": (1, 3)})]
    )
    monkeypatch.setattr(figures, "legend", lambda axes: seen.append(("legend", "", rows)))
    factors.drawing(rows, "psnr")
    named = {"toy / one (n = 2)": figures.COLOURS[0], "toy / two (n = 2)": figures.COLOURS[1]}
    assert [(label, colour) for label, colour, _ in seen] == [*named.items(), *named.items(), ("legend", "")]
    assert [len(points) for _, _, points in seen[:4]] == [2, 2, 0, 2]


def test_markup_in_a_name_is_text_and_the_same_rows_give_the_same_bytes(monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = told("toy / <script>&--> $x$", {"clients": (2, 4, 16), "local steps": (1, 3)})
    svg = factors.drawing(rows, "psnr")
    assert svg == factors.drawing(rows, "psnr") and svg.count("<svg") == 1
    assert "<script" not in svg and "&lt;script&gt;&amp;" in svg
    ElementTree.fromstring(svg)
    said = [text.strip() for text in re.findall("<!--(.*?)-->", svg)]
    assert [text for text in said if text in BOARDS] == ["clients", "local steps"]
    ElementTree.fromstring(factors.drawing(rows.assign(score=10.0, low=float("nan")), "psnr"))


def test_the_page_has_both_figures_beside_the_others(results):
    found = report._factors(results, results.benchmark(BASE))
    assert [figure["caption"] for figure in found] == [report.FACTORS_CAPTION] * 2
    labels = [re.findall('aria-label="(.*?)"', figure["svg"]) for figure in found]
    assert labels == [[f"{BASE}-factors-psnr"], [f"{BASE}-factors-retrieval"]]
