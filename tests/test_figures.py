"""Pictures: one scale for all, the same bytes again, and curves that no trial drops out of."""

from __future__ import annotations

import io
from pathlib import Path

import fake_results as fake
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from leakboard.board import figures


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_grey_stays_the_same_grey_whatever_else_is_in_the_picture(tmp_path: Path) -> None:
    true = np.full((2, 1, 8, 8), 0.5)
    figures.grid(tmp_path / "a.png", true, {"one": np.full_like(true, 0.25), "two": np.full_like(true, 2.0)})
    got = pixels(tmp_path / "a.png")
    assert got.ndim == 2  # grey images make a grey file
    area = 84 // 8 * 8 * (84 // 8 * 8)
    for level, images in ((128, 2), (64, 2)):
        assert (got == level).sum() >= images * area
    assert (got == 128).sum() < 2 * area + 50


def test_every_pixel_is_repeated_not_blended(tmp_path: Path) -> None:
    true = np.zeros((1, 3, 4, 4))
    true[0, 0, 1, 2] = 1.0
    tile = figures._tile(true[0], 84)
    assert tile.shape == (84, 84, 3)
    assert (tile[21:42, 42:63] == (255, 0, 0)).all() and tile.sum() == 255 * 21 * 21


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 224)])
def test_the_same_bytes_and_small_even_for_noise(tmp_path: Path, channels: int, side: int) -> None:
    rng = np.random.default_rng(0)
    true, noise = rng.random((2, 12, channels, side, side))
    for name in ("a.png", "b.png"):
        figures.grid(tmp_path / name, true, {"one": noise, "two": noise, "three": noise})
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes() and len(content) <= figures.MOST_BYTES
    assert b"tIME" not in content and b"tEXt" not in content
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_captions_failed_images_and_wrong_shapes(tmp_path: Path) -> None:
    true = np.zeros((3, 1, 8, 8))
    failed = true.copy()
    failed[1] = np.nan
    figures.grid(tmp_path / "a.png", true, {"x": failed})
    figures.grid(tmp_path / "b.png", true, {"x": failed}, {"x": "a much longer name"})
    assert pixels(tmp_path / "b.png").shape[1] > pixels(tmp_path / "a.png").shape[1]
    assert figures._psnr_text(true[1], failed[1]) == "-" and figures._psnr_text(true[0], failed[0]) == "100.0"
    assert figures._psnr_text(true[0], true[0] + 0.1) == "20.0"
    with pytest.raises(ValueError, match=r"\(3, 1, 8, 8\).*\(2, 1, 8, 8\)"):
        figures.grid(tmp_path / "c.png", true, {"x": true[:2]})


def test_curves_are_the_same_bytes_and_carry_no_date(tmp_path: Path) -> None:
    frame = fake.curve(["plain", "better"])
    figures.curves(tmp_path / "a.svg", frame)
    buffer = io.StringIO()
    figures.curves(buffer, frame)
    text = (tmp_path / "a.svg").read_text()
    assert text == buffer.getvalue() and "<dc:date>" not in text and text.rstrip().endswith("</svg>")


def test_a_trial_that_ended_keeps_its_last_value() -> None:
    def lines(trial: int, points: list[tuple[float, float]]) -> list[dict[str, object]]:
        return [{"trial": trial, "evaluations": x, "psnr": y} for x, y in points]

    frame = pd.DataFrame([*lines(0, [(1, 5.0), (4, 8.0)]), *lines(1, [(2, 6.0), (8, 20.0), (16, 30.0)])])
    x, values = figures._along(frame)
    assert x.tolist() == [2, 4, 8, 16]
    assert values.tolist() == [[5.0, 8.0, 8.0, 8.0], [6.0, 6.0, 20.0, 30.0]]


def test_one_device_kind_is_drawn() -> None:
    frame = pd.DataFrame({"device_kind": ["cpu", "cpu", "cuda", "cuda", "mps"], "trial": [0, 1, 0, 1, 0]})
    assert set(figures._one_kind(frame)["device_kind"]) == {"cuda"}
    assert set(figures._one_kind(frame[:3])["device_kind"]) == {"cpu"}


def test_quality_against_cost_leaves_out_what_has_no_place(tmp_path: Path) -> None:
    board = pd.DataFrame(
        {"paper": ["toy", "toy", "controls"], "variant": ["a", "b", "c"], "device_kind": "cpu",
         "rank": ["1", "2", "-"], "metric": "psnr",
         "score": [30.0, np.nan, 10.0], "score_low": [29.0, np.nan, 9.0], "score_high": [31.0, np.nan, 11.0],
         "seconds": [1.0, 2.0, 0.0]}
    )  # fmt: skip
    assert [row["variant"] for row in figures.drawable(board)] == ["a"]
    for name in ("a.svg", "b.svg"):
        figures.quality_against_cost(tmp_path / name, board)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_rows_stand_beside_their_own_where_a_defence_is_all_that_differs(monkeypatch):
    """Of the boards that are committed: those whose confidences are rounded, and no board of another question."""
    from leakboard import config
    from leakboard.board import defended
    from leakboard.record import trial_lines
    from leakboard.record.results import Results

    level = {0.0: 1.0, 0.001: 0.9, 0.05: 0.4}

    def lines(self, paper, run):
        step = config.benchmark(run, "quick").defence.get("rounding", {}).get("step", 0.0)
        if paper != "fredrikson" or step not in level:
            return trial_lines.frame()
        shared = {"attack": paper, "benchmark": run, "status": "ok", "device_kind": "cpu", "execution": "loop"}
        shared |= dict.fromkeys(("benchmark_version", "attack_version", "engine", "seed"), 1) | {"variant": "blocks"}
        return trial_lines.frame({**shared, "trial": n, "evaluator_accuracy": level[step]} for n in range(4))

    monkeypatch.setattr(Results, "current_lines", lines)
    results, board = Results.at("quick"), config.benchmark("softmax_att_released_blackbox", "quick")
    rows = defended.under_defence(results, board)
    assert set(rows["defence"]) == {"rounding step"} and set(rows["row"]) == {"fredrikson / blocks"}
    assert dict(zip(rows["strength"], rows["score"], strict=True)) == level and list(rows["n"]) == [4, 4, 4]
    svg = defended.drawing(rows, "evaluator_accuracy")
    assert svg == defended.drawing(rows, "evaluator_accuracy") and svg.count("<svg") == 1
    for other in ("softmax_att_released", "softmax_att_released_blackbox_rounded_5"):
        assert defended.under_defence(results, config.benchmark(other, "quick")).empty


def test_rows_that_differ_by_their_starts_alone_stand_in_one_line(monkeypatch):
    """GMI's three rows on its digits: neither its control nor what starts once for another reason."""
    from leakboard import config
    from leakboard.board import restarts
    from leakboard.record import trial_lines
    from leakboard.record.results import Results

    made = {"gmi": (5, 0.8), "twice": (2, 0.6), "once": (1, 0.5), "prior_only": (5, 0.0), "gan": (1, 0.1)}

    def lines(self, paper, run):
        if paper != "gmi":
            return trial_lines.frame()
        shared = {"attack": paper, "benchmark": run, "status": "ok", "device_kind": "cpu", "execution": "loop"}
        shared |= dict.fromkeys(("benchmark_version", "attack_version", "engine", "seed"), 1)
        return trial_lines.frame(
            {**shared, "variant": name, "trial": n, "evaluator_accuracy": score, "restarts": starts}
            for name, (starts, score) in made.items()
            for n in range(3)
        )

    monkeypatch.setattr(Results, "current_lines", lines)
    results, board = Results.at("quick"), config.benchmark("mcnn_mnist_released", "quick")
    rows = restarts.by_restarts(results, board)
    assert set(rows["row"]) == {"gmi / gmi"} and set(rows["n"]) == {3}
    assert dict(zip(rows["restarts"], rows["score"], strict=True)) == pytest.approx({5: 0.8, 2: 0.6, 1: 0.5})
    svg = restarts.drawing(rows, "evaluator_accuracy")
    assert svg == restarts.drawing(rows, "evaluator_accuracy") and svg.count("<svg") == 1
    assert restarts.by_restarts(results, config.benchmark("cnn_lfw_released_masked", "quick")).empty


def test_the_rounds_of_a_row_stand_beside_each_other(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"trial 0": rng.random((3, 1, 8, 8)), "trial 1": rng.random((2, 1, 8, 8))}
    figures.lapse(tmp_path / "rounds.png", rows, ["1", "2", "4"])
    with Image.open(tmp_path / "rounds.png") as sheet:
        pixels = np.asarray(sheet)
    tile = 56
    left = pixels.shape[1] - 3 * (tile + figures.GAP)
    first = pixels[figures.GAP : figures.GAP + tile, left : left + tile]
    assert np.array_equal(first[::7, ::7], np.round(rows["trial 0"][0, 0] * 255).astype(np.uint8))
    blank = pixels[2 * figures.GAP + tile : 2 * (figures.GAP + tile), left + 2 * (tile + figures.GAP) :]
    assert (blank == 255).all(), "a row that ended earlier is blank from there on"
