"""Boards by hand: order, ranks, ties, controls, failures, skipped and stale lines; the README's table."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import fake_results as fake
import pandas as pd
import pytest

from leakboard import config
from leakboard.board import check, readable, replication, tables, verdict
from leakboard.record import trial_lines
from leakboard.record.results import Results


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake.checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verdict, "ENOUGH_FOR_NUMBERS", 4)
    fake.everything()
    return tmp_path


def ranks(board: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(board["rank"], board["variant"], strict=True))


def test_rows_stand_by_score_and_controls_carry_no_rank(suite: Path) -> None:
    board = tables.leaderboard(Results.at("quick"))
    assert ranks(board) == [("1", "better"), ("2", "only"), ("3", "plain"), ("-", "noise")]
    best = board.iloc[0]
    mse = [0.0004 * (1 + trial / 10) for trial in range(4)]
    assert best["mse"] == pytest.approx(sum(mse) / 4, rel=1e-5)
    assert best["score"] == best["psnr"] == pytest.approx(sum(-10 * math.log10(one) for one in mse) / 4, rel=1e-5)
    assert best["score_low"] < best["score"] < best["score_high"]
    assert (best["n"], best["failures"], best["labels"], best["seconds"]) == (4, 0, "given", 2.5)
    assert (best["conduct"], best["attacker"], best["knows"]) == ("honest", "server", "batch_size labels")
    assert board["seconds_to_20"].tolist() == [0.5, 0.5, 0.5, math.inf]


def test_equal_means_share_a_rank(suite: Path) -> None:
    fake.store("rival", [fake.line("rival", "only", trial, 0.0004 * (1 + trial / 10)) for trial in range(4)])
    assert [rank for rank, _ in ranks(tables.leaderboard(Results.at("quick")))] == ["1", "1", "3", "-"]


def test_a_failed_trial_counts_and_is_named(suite: Path) -> None:
    failed = fake.line("toy", "better", 3, 0.1, status="timeout", seconds_to_20=math.nan)
    fake.store("toy", [*fake.trials("toy", "better", 3), failed, *fake.trials("toy", "plain")])
    row = tables.leaderboard(Results.at("quick")).set_index("variant").loc["better"]
    assert (row["n"], row["failures"], row["note"]) == (4, 1, "1 timeout")
    assert row["mse"] == pytest.approx((0.0004 * 3.3 + 0.1) / 4, rel=1e-5)


def test_too_few_trials_and_skipped_ones_are_noted(suite: Path) -> None:
    skipped = fake.line("toy", "plain", 0, 1.0, status="skipped", reason="needs | labels", psnr=math.nan)
    fake.store("toy", [*fake.trials("toy", "better", 2), skipped])
    board = tables.leaderboard(Results.at("quick")).set_index("variant")
    assert board.loc["better", "note"] == "2 of 4 trials"
    assert tuple(board.loc["plain", ["rank", "n", "note"]]) == ("-", 0, "skipped: needs | labels")
    text = readable.markdown(readable.shown(board.reset_index(), config.benchmark(fake.RUN, "quick")))
    assert "needs \\| labels" in text and len({line.replace("\\|", "").count("|") for line in text.splitlines()}) == 1


def test_stale_lines_are_counted_in_a_note_and_never_ranked(suite: Path) -> None:
    old = [{**one, "attack_sha": "old"} for one in fake.trials("toy", "better", 4)]
    fake.store("toy", [*fake.trials("toy", "plain", 3), {**fake.line("toy", "plain", 3, 1e-9), "engine": 0}, *old])
    board = tables.leaderboard(Results.at("quick")).set_index("variant")
    assert tuple(board.loc["better", ["rank", "n", "note"]]) == ("-", 0, "4 stale lines")
    assert tuple(board.loc["plain", ["rank", "n", "note"]]) == ("-", 3, "3 of 4 trials; 1 stale line")  # others have 4
    assert math.isnan(board.loc["better", "psnr"])


def test_an_attack_is_ranked_once_however_many_machines_ran_it(suite: Path) -> None:
    twice = [*fake.trials("toy", "better"), *fake.trials("toy", "better", device_kind="cuda")]
    fake.store("toy", [*twice, *fake.trials("toy", "plain"), *fake.trials("toy", "plain", 2, device_kind="cuda")])
    board = tables.leaderboard(Results.at("quick"))
    got = {(row.variant, row.device_kind): row.rank for row in board.itertuples()}
    assert got["better", "cuda"] == "1" and got["better", "cpu"] == "-"  # CUDA on a tie
    assert got["plain", "cpu"] == "3" and got["plain", "cuda"] == "-"  # else most trials


def test_a_folder_outside_runs_and_other_papers_lines_are_not_read(suite: Path) -> None:
    params = suite / "baselines/rival/params.yaml"
    params.write_text(params.read_text().replace(f"{fake.RUN}:", "elsewhere:"))
    (suite / "benchmarks/elsewhere.yaml").write_bytes((suite / f"benchmarks/{fake.RUN}.yaml").read_bytes())
    assert "rival" not in tables.leaderboard(Results.at("quick"))["paper"].tolist()


@pytest.mark.parametrize("metric", ["mse", "seconds_to_20", "seconds"])
def test_less_is_better_for_errors_and_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    fake.checkout(tmp_path, metrics=[metric], knows=["batch_size"])
    monkeypatch.chdir(tmp_path)
    slow = {"seconds": 9.0, "seconds_to_20": math.inf}
    fake.store("toy", [*fake.trials("toy", "better"), *fake.trials("toy", "plain", **slow)])
    fake.store("rival", fake.trials("rival", "only", device_kind="cuda"))
    board = tables.leaderboard(Results.at("quick")).set_index("variant")
    assert board.loc["better", "rank"] == "1"
    if metric == "mse":
        assert board.loc["plain", "rank"] == "3"
    else:  # a cost on another device is not compared; four trials have medians without an interval
        assert (board.loc["plain", "rank"], board.loc["only", "rank"]) == ("1", "-")
        assert board.index.get_loc("better") < board.index.get_loc("plain")
    assert board.loc["only", "labels"] == "inferred"


def test_an_extra_attack_stands_at_its_rank(suite: Path) -> None:
    lines = trial_lines.frame(fake.trials("toy", "default", attack="mine", mse=0.001, psnr=30.0))
    board = tables.board_around(Results.at("quick"), fake.RUN, lines)
    assert ranks(board) == [("1", "better"), ("2", "default"), ("3", "only"), ("4", "plain"), ("-", "noise")]
    question = config.benchmark(fake.RUN, "quick")
    pd.testing.assert_frame_equal(
        board, tables.board_around(Results.at("quick"), fake.RUN, tables.rows("mine", question, lines))
    )
    again = tables.board_around(
        Results.at("quick"), fake.RUN, tables.rows("toy", question, trial_lines.frame(fake.trials("toy", "better")))
    )
    assert len(again) == 4


def test_files_are_the_same_bytes_and_lie_where_they_are_asked_for(suite: Path) -> None:
    tables.write_leaderboard(Results.at("quick"))
    folder = suite / "results/quick"
    first = [(folder / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.md")]
    fake.everything(suite / "here")
    tables.write_leaderboard(Results.at("quick", suite / "here"))
    assert first == [(suite / "here/quick" / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.md")]
    text = first[1].decode()
    assert f"## {fake.RUN}" in text and "How sharp?" in text and "| 1 | toy / better | 33.4 [32.6, 34.2] |" in text
    assert "An honest-but-curious server sees the gradient of one batch (1 image)" in text
    assert list(check._leaderboard_findings(Results.at("quick"))) == []
    (folder / "leaderboard.csv").write_text(first[0].decode().replace("33.3931", "34.3931"))
    assert [one.what for one in check._leaderboard_findings(Results.at("quick"))]


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("psnr", 23.456, "23.5"), ("ssim", -0.001, "0.00"), ("mse", 0.00123456, "0.00123"), ("lpips", math.nan, "-"),
        ("seconds", 1234.5, "1234"), ("seconds", 4e-5, "< 0.001"), ("seconds_to_20", math.inf, "inf"),
        ("evaluations", 0.0, "0"),
    ],
)  # fmt: skip
def test_numbers_are_written_for_readers(metric: str, value: float, text: str) -> None:
    assert readable.number(metric, value) == text


def test_an_empty_suite_has_an_empty_leaderboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    tables.write_leaderboard(Results.at("quick"))
    assert (tmp_path / "results/quick/leaderboard.csv").read_text().startswith("benchmark,paper,variant")
    assert "| The toy" not in replication.replication_table(Results.at("quick"))


def test_the_replication_table_counts_and_lists_misses_first(suite: Path) -> None:
    lines = replication.replication_table(Results.at("quick")).splitlines()
    assert "| numbers, verified | 1 | 2 | 0 | 1 |" in lines  # of the two misses one has a cause, and is none the less
    listed = [line for line in lines if line.startswith("| toy |")]
    assert [line.split(" | ")[-1] for line in listed] == ["missed |", "missed |", "reproduced |"]
    assert ": psnr | 13 | 33.39 [32.61, 34.17] (n = 4) | missed |" in listed[0]


def test_the_replication_table_stays_short(suite: Path) -> None:
    table = verdict.verdicts(Results.at("quick"))
    many = pd.concat([table] * 20, ignore_index=True)
    Results.at("quick").file("published.csv").write_text(verdict.text_of(many))
    lines = replication.replication_table(Results.at("quick")).splitlines()
    assert len(lines) == replication.MOST_LINES
    listed = sum(line.startswith("| toy |") for line in lines)
    assert lines[-1] == f"| | and {60 - listed} more in `results/quick/published.csv` | | | |"


def test_the_readme_is_renewed_between_its_marks(suite: Path) -> None:
    readme = suite / "README.md"
    readme.write_text("before\n<!-- replication:begin -->\nold\n<!-- replication:end -->\nafter\n")
    assert replication.readme_is_stale(readme, Results.at("quick"))
    replication.update_readme(readme, Results.at("quick"))
    assert not replication.readme_is_stale(readme, Results.at("quick"))
    text = readme.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="replication:begin"):
        replication.update_readme(readme, Results.at("quick"))


def test_published_committed_and_here_side_by_side(suite: Path) -> None:
    committed = replication.read_verdicts(Results.at("quick"))
    fake.store("toy", [*fake.trials("toy", "plain", psnr=30.0), *fake.trials("toy", "better")])
    table = replication.comparison(verdict.verdicts(Results.at("quick")), committed)
    assert table.columns.tolist() == ["paper", "run", "metric", "published", "committed", "here", "verdict"]
    first, _, absent, twin = table.to_dict("records")
    assert first["committed"].startswith("23.39 [") and first["here"] == "30 [30, 30] (n = 4)"
    assert first["verdict"] == "missed (committed: reproduced)" and twin["verdict"] == "missed"
    assert (absent["committed"], absent["here"], absent["verdict"]) == ("-", "-", "not run")
    alone = replication.comparison(verdict.verdicts(Results.at("quick")), committed.iloc[:0])
    assert alone["committed"].tolist() == ["-"] * 4


def test_no_torch_is_imported() -> None:
    code = "import sys, leakboard.board.tables, leakboard.board.figures, leakboard.board.report as r; " + (
        "sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib', 'jinja2', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
