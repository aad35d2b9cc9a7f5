"""Attacks by defences: the table and the figure of leak against utility, from lines and prices that are made up."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from toys import ROOT

from leakboard import config
from leakboard.board import defence_table, defended, report, tables
from leakboard.record import prices, trial_lines
from leakboard.record.results import Results

NONE = "lenet_cifar10_gradient_none"
LEVEL = {NONE: 20.0, "lenet_cifar10_gradient_noise_0_01": 15.0, "lenet_cifar10_gradient_noise_1": 8.0}
UTILITY = {NONE: 0.5, "lenet_cifar10_gradient_noise_0_01": 0.45, "lenet_cifar10_gradient_dp_sgd_1": 0.2}


def lines(self, paper, run):
    """Of IG four trials around a level; of DLG one board more."""
    if paper not in ("ig", "dlg") or run not in LEVEL or (paper == "dlg" and run != NONE):
        return trial_lines.frame()
    shared = {"attack": paper, "benchmark": run, "status": "ok", "device_kind": "cpu", "execution": "loop"}
    shared |= dict.fromkeys(("benchmark_version", "attack_version", "engine", "seed"), 1)
    shared["variant"] = {"ig": "cosine", "dlg": "joint"}[paper]
    return trial_lines.frame({**shared, "trial": n, "psnr": LEVEL[run] + n - 1.5} for n in range(4))


@pytest.fixture
def results(monkeypatch, tmp_path) -> Results:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Results, "current_lines", lines)
    made = Results("quick", tmp_path)
    for name, accuracy in UTILITY.items():
        record = {"recipe": made.benchmark(name).priced.hash, "accuracy": accuracy, "images": 445, "steps": 6}
        record |= {"epsilon": 1.5, "delta": 1e-5} if "dp_sgd" in name else {}
        made.victim(name).mkdir(parents=True)
        (made.victim(name) / prices.PRICE).write_text(json.dumps(record))
    return made


def test_rows_are_attacks_and_columns_defences_with_what_they_cost(results):
    table = defence_table.attack_by_defence(results, results.benchmark(NONE))
    family = [name for name in config.board_names() if config.like(name) == NONE]
    assert len(table.columns) == 2 + len(family) >= 2 + 8 and list(table["attack"]) == ["dlg / joint", "ig / cosine"]
    head = {text.split(":")[0]: text for text in table.columns}
    assert list(table.columns[:2]) == ["attack", "none: utility 0.500, n = 1"]
    assert head["gaussian_noise (deviation 0.01)"].endswith("utility 0.450, n = 1")
    assert head["gaussian_noise (deviation 1)"].endswith("utility -, n = 1")
    assert head["secure_aggregation"].endswith("4 images")
    cells = table.set_index("attack")
    assert cells.loc["ig / cosine", head["gaussian_noise (deviation 1)"]] == "8.0 [5.9, 10.1]"
    assert cells.loc["dlg / joint", head["gaussian_noise (deviation 1)"]] == "-"
    strengths = [re.findall(r"deviation ([\d.e-]+)", text) for text in table.columns if text.startswith("gaussian")]
    assert strengths == sorted(strengths, key=lambda found: float(found[0]))


def test_a_board_that_is_defended_or_alone_has_no_table(results):
    for name in ("lenet_cifar10_gradient_noise_1", "lenet_mnist_gradient"):
        assert defence_table.attack_by_defence(results, results.benchmark(name)).empty


def test_the_price_is_said_once_under_the_threat(results):
    def said(name: str) -> str:
        return defence_table.price_sentence(results, results.benchmark(name))

    assert said(NONE) == (
        "Utility: the same network, trained without a defence for 6 steps, has accuracy 0.500 (445 test images)."
    )
    assert "under gaussian_noise (deviation 0.01) for 6 steps, has accuracy 0.450, without a defence 0.500" in said(
        "lenet_cifar10_gradient_noise_0_01"
    )
    assert said("lenet_cifar10_gradient_dp_sgd_1").endswith(
        "That training spends epsilon 1.5 at delta 1e-05 (opacus' accountant)."
    )
    assert said("lenet_cifar10_gradient_noise_1") == "" == said("lenet_mnist_gradient")


def test_the_same_table_stands_on_both_pages(results, monkeypatch):
    """And names the defence in the threat sentence of the defended board."""
    monkeypatch.setattr(Results, "lines", lines)
    monkeypatch.setattr(tables.trial_lines, "current", lambda found, keys: found["trial"] >= 0)
    monkeypatch.setattr(config, "board_names", lambda: sorted(LEVEL))
    page, board = tables.write_leaderboard(results), Path(results.file("leaderboard.md")).read_text()
    html = report.report(results, board=page).read_text()
    table = defence_table.attack_by_defence(results, results.benchmark(NONE))
    assert "Attacks by defences: PSNR" in board and board.count("Attacks by defences") == 1
    for text in (*table.columns, *table.to_numpy().flatten()):
        assert text in board and text in html
    assert "on photos" not in board and "under gaussian_noise (deviation 1) and knows" in board
    for text in (board, html):
        assert text.count("accuracy 0.450, without a defence 0.500") == 1
    assert "What leaks against what the network is good for" in html


def test_the_figure_of_leak_against_utility_takes_the_boards_that_have_a_price(results):
    rows = defended.under_defence(results, results.benchmark(NONE))
    noise = rows[rows["defence"] == "gaussian_noise deviation"]
    assert dict(zip(noise["strength"], noise["score"], strict=True))[1.0] == 8.0 and noise["utility"].isna().any()
    assert defended.drawable_utility(noise) and defended.drawable(noise)
    assert not defended.drawable(noise[noise["strength"] == 0]), "no defended board has run"
    svg = defended.utility_drawing(noise, "psnr")
    assert svg == defended.utility_drawing(noise, "psnr") and svg.count("<svg") == 1
    assert not defended.drawable_utility(noise[noise["strength"] > 0]), (
        "without the undefended point there is no figure"
    )
    assert not defended.drawable_utility(noise.assign(utility=float("nan")))
