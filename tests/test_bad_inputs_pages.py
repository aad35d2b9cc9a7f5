"""What texts of others do to what is shown: a name, a reason or a device is never markup, on a page or a terminal."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import fake_results as fake
import pandas as pd
import pytest
import yaml

from leakboard import cli, console
from leakboard.board import report, tables
from leakboard.board.readable import markdown
from leakboard.errors import MOST_SHOWN, brief, one_line
from leakboard.record.results import Results

HOSTILE = (
    "<script>alert(1)</script>", "</td></tr></table><h1>", "<img src=x onerror=alert(1)>", '"><svg onload=alert(1)>',
    "a | b || c", "[click](javascript:alert(1))", "![x](http://example.invalid/x.png)", "[red]bold[/red] [/]",
    "$\\frac{1}{2}$", "one\ntwo\r\n| x | y |", "\x1b[2J\x1b[31m", "{{ 7 * 7 }} {% raw %}", "&lt;b&gt;", "\u202egnp.exe",
    "' onmouseover='alert(1)", "`code` **bold**", "\\", "<!-- comment", "]]>", "%s %d {0}",
)  # fmt: skip
FREE = ("device", "torch", "commit")  # columns of a line that hold whatever a machine says of itself


class Skeleton(HTMLParser):
    """The tags of a page with the names of their attributes, each so many times."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[tuple[str, ...]] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[(tag, *(name for name, _ in attrs))] += 1


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fake.checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.screen, "_width", 2000)
    return tmp_path


def shown_with(text: str) -> tuple[str, str]:
    """(page, leaderboard in markdown) where one row was skipped for `text`, on a machine that is called so."""
    machine = dict.fromkeys(FREE, text)
    fake.everything()
    fake.store("rival", fake.trials("rival", "only", status="skipped", reason=text, **machine))
    failed = fake.trials("toy", "plain", reason=text, status="failed", **machine)
    fake.store("toy", [*failed, *fake.trials("toy", "better")])
    page = report.report(Results.at("quick")).read_text()
    tables.write_leaderboard(Results.at("quick"))
    return page, Results.at("quick").file("leaderboard.md").read_text()


def cells_of(page: str) -> list[int]:
    """How many cells every line of a table has."""
    return [len(re.findall(r"(?<!\\)\|", line)) for line in page.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_markup_on_a_page(text, suite):
    plain_page, plain_board = shown_with("x" * len(text))
    page, board = shown_with(text)
    assert Skeleton(page).tags == Skeleton(plain_page).tags
    assert "7 * 7" in page or "7 * 7" not in text
    assert cells_of(board) == cells_of(plain_board)
    rows = "\n".join(line for line in board.splitlines() if line.startswith("|"))
    assert not re.search(r"<[A-Za-z/!?]|\]\(|[\x00-\x09\x0b-\x1f]", rows)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable()])  # others are no question
def test_no_question_is_markup_on_a_board(text, suite):
    benchmark = suite / "benchmarks" / f"{fake.RUN}.yaml"
    content = yaml.safe_load(benchmark.read_text())
    content["about"]["question"] = f"How sharp? {text}?"
    benchmark.write_text(yaml.safe_dump(content))
    fake.everything()
    tables.write_leaderboard(Results.at("quick"))
    board = Results.at("quick").file("leaderboard.md").read_text()
    assert not re.search(r"<[A-Za-z/!?]|\]\(|[\x00-\x09\x0b-\x1f]", board)


def test_a_table_of_markdown_keeps_its_numbers():
    table = pd.DataFrame({"MSE < 1e-3": ["0.50 [0.25, 0.75]", "< 0.001"], "note": ["a | b", "<b>"]})
    assert markdown(table).splitlines() == [
        "| MSE < 1e-3 | note |", "| --- | --- |", "| 0.50 [0.25, 0.75] | a \\| b |", "| < 0.001 | &lt;b> |",
    ]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_markup_on_a_terminal(text, capsys, monkeypatch):
    monkeypatch.setattr(cli.screen, "_width", 2000)
    console.print_frame(pd.DataFrame({text: [text], "other": ["x"]}), title=text)
    console.tell("error", text)
    said = capsys.readouterr().out
    assert one_line(text) in said.splitlines()[-1] and said.splitlines()[-1].startswith("error ")
    assert "\x1b[2J" not in said and "\u202e" not in said and said.count("\n") < 8
    assert sum(one_line(text) in line for line in said.splitlines()) >= 2


def test_the_name_of_a_folder_is_no_markup(tmp_path, monkeypatch):
    place = tmp_path / "[red]here[/red]"
    place.mkdir(parents=True)
    fake.checkout(place)
    monkeypatch.chdir(place)
    monkeypatch.setattr(cli.screen, "_width", 2000)
    fake.everything()
    from bad_inputs.suite import said_to

    assert "[red]here[/red]/build/report/quick.html" in said_to("report", {}).text
    (place / "benchmarks" / f"{fake.RUN}.yaml").write_text("[")
    assert "[red]here[/red]/benchmarks" in said_to("list", {}).text


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (True, "True"), ("7", "'7'"), (float("nan"), "nan"), ({"a": 1}, "{'a': 1}"), ("a\nb", "'a\\nb'"),
        (None, "None"),
    ],
)  # fmt: skip
def test_what_was_found_is_written_as_it_is(value, written):
    assert brief(value) == written


def test_what_is_long_is_shown_by_its_beginning():
    for value in ("x" * 10**7, b"\0" * 10**7, list(range(10**5)), {str(n): n for n in range(10**4)}):
        shown = brief(value)
        assert len(shown) < 2 * MOST_SHOWN and "\n" not in shown and f"{len(value)} in all" in shown


def test_one_line_holds_nothing_that_a_terminal_acts_on():
    assert one_line("a\n\tb \x1b[2J\x07 \udcff é") == "a b \\x1b[2J\\x07 \\udcff é"
