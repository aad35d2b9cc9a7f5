"""What is committed holds together, and every command that the README shows does what it says."""

from __future__ import annotations

import re
import shutil

import pytest
from typer.testing import CliRunner

from leakboard.board import replication
from leakboard.cli import app
from leakboard.config import benchmark_names, paper_names, params, root
from leakboard.record.results import Results

README = root() / "README.md"


def call(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == status, result.output
    return result.output


def test_the_replication_table_in_the_readme_is_the_committed_one():
    assert not replication.readme_is_stale(README, Results.at("paper")), "leakboard report --scale paper renews it"


def test_every_committed_number_follows_from_its_trials():
    assert "every committed number follows from its trials" in call("check")


def test_list_names_every_paper_and_benchmark():
    shown = re.sub(r"\s", "", call("list"))
    assert all(name[:12] in shown for name in (*paper_names(), *benchmark_names()))


def test_report_writes_one_page_that_needs_no_network(tmp_path):
    shutil.copytree(root() / "results" / "quick", tmp_path / "quick")
    call("report", "--scale", "quick", "--out", str(tmp_path))
    page = (tmp_path / "report" / "quick.html").read_text()
    assert "lenet_mnist_gradient" in page and not re.search(r"(src|href)=\"https?:", page)


def test_data_list_names_every_set_and_its_licence():
    assert "mnist" in call("data", "list")


def test_data_verify_finds_the_files_as_published(real_data):
    assert "yes" in call("data", "verify", "mnist")


def test_data_fetch_of_an_unknown_set_names_the_known_ones():
    assert "mnist" in call("data", "fetch", "minst", status=2)


@pytest.mark.parametrize("paper", paper_names())
def test_every_run_has_committed_results(paper):
    for scale in ("quick", "paper"):
        for run in params(paper).boards_at(scale):
            folder = root() / "results" / scale / "papers" / paper / run
            lacking = [name for name in ("trials.csv", "metrics.json", "timing.json") if not (folder / name).exists()]
            assert not lacking, f"{folder} lacks {lacking}"
