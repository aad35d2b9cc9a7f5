"""The page: complete in itself, escaped, every id once, the same bytes again."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import fake_results as fake
import numpy as np
import pytest

from leakboard.board import figures, report, verdict
from leakboard.record.results import Results

VOID = {"meta", "img", "br", "hr", "link"}


class Page(HTMLParser):
    """Tags that close in order, ids, and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(attrs)

    def note(self, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.ids.update([named["id"] or ""] if "id" in named else [])
        self.links += [named[name] or "" for name in ("src", "href", "xlink:href") if name in named]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def fill(top: Path | None = None) -> None:
    fake.everything(top)
    true = np.random.default_rng(0).random((4, 1, 8, 8))
    for paper, variants in fake.PAPERS.items():
        folder = Results.at("quick", top).folder(paper, fake.RUN)
        fake.curve([*variants, "gone"]).to_csv(folder / "curve.csv", index=False)
        figures.grid(folder / "grid.png", true, dict.fromkeys(variants, true))


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verdict, "ENOUGH_FOR_NUMBERS", 4)
    fake.checkout(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_is_complete_in_itself(suite: Path) -> None:
    fill()
    path = report.write_all(Results.at("quick"))
    assert path == suite / "build/report/quick.html"
    text = path.read_text()
    page = Page(text)
    assert page.open == [] and max(page.ids.values()) == 1
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert text.count("<figure><img") == 3 and text.count("<svg ") == 2
    assert (suite / "results/quick/leaderboard.md").exists() and (suite / "results/quick/published.csv").exists()


def test_it_says_what_was_found(suite: Path) -> None:
    question = suite / f"benchmarks/{fake.RUN}.yaml"
    question.write_text(question.read_text().replace("How sharp?", "<b>How sharp?</b>"))
    fill()
    text = report.report(Results.at("quick")).read_text()
    assert "&lt;b&gt;How sharp?" in text and "<b>How" not in text
    assert "numbers, verified: 1 reproduced, 2 missed, 1 not run." in text
    assert "23.39 [22.61, 24.17] (n = 4)" in text and "a processor" in text
    assert "toy / better" in text and "toy / gone" not in text


def test_it_is_the_same_again_and_goes_where_it_is_asked_to(suite: Path) -> None:
    fill(suite / "here")
    results = Results.at("quick", suite / "here")
    elsewhere = report.report(results)
    assert elsewhere == suite / "here/report/quick.html"
    first = elsewhere.read_bytes()
    assert report.report(results).read_bytes() == first
    assert not (suite / "build").exists() and not (suite / "results").exists()


def test_a_suite_without_results_has_a_page_too(suite: Path) -> None:
    page = Page(report.report(Results.at("paper")).read_text())
    assert page.open == [] and f"{fake.RUN}" not in page.ids
