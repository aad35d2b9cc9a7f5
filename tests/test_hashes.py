"""What a line's key and a stage's parameters hold: all that changes a number, and nothing that does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from toys import QUESTION, ROOT, question

from leakboard import config
from leakboard.config.benchmark import UNASKED
from leakboard.config.yaml12 import Yaml12
from leakboard.record import trial_lines
from leakboard.record.results import Results

MIGRATION = ROOT / "tests" / "migration.json"


def written_out(section: BaseModel) -> dict[str, Any]:
    """A section with every default said, as somebody might write it who likes to see them all."""
    return section.model_dump(mode="json")


def minimal() -> dict[str, Any]:
    return {"name": "toy", "scale": "quick", **QUESTION}


def test_to_write_a_default_out_changes_no_hash():
    asked = question()
    assert config.Benchmark.model_validate(written_out(asked)).hash == asked.hash
    for name in config.benchmark_names():
        for scale in config.SCALES:
            one = config.benchmark(name, scale)
            assert config.Benchmark.model_validate(written_out(one)).hash == one.hash, name


@pytest.mark.parametrize("key", sorted(UNASKED))
def test_what_changes_no_number_is_not_hashed(key):
    other = {
        "name": "other",
        "scale": "paper",
        "trials": 3,
        "question": "Why?",
        "metrics": ["ssim"],
        "timeout_seconds": 1,
        "price": {"epochs": 1, "learning_rate": 0.1},
    }
    asked = config.Benchmark.model_validate(minimal())
    assert config.Benchmark.model_validate({**minimal(), key: other[key]}).hash == asked.hash


CHANGES: dict[str, dict[str, Any]] = {
    "version": {"version": 2},
    "seed": {"seed": 8},
    "data": {"data": {"name": "digits", "start": 1}},
    "victims of some classes": {"data": {"name": "digits", "classes": "0-4"}},
    "public": {"public": {"count": 9}},
    "another public set": {"public": {"count": 8, "name": "photos"}},
    "network": {"network": {"name": "lenet_sigmoid", "width": 3}},
    "threat": {"threat": {"knows": ["batch_size", "public_data", "labels"]}},
    "defence": {"defence": {"gaussian_noise": {"deviation": 0.1}}},
    "batch": {"batch": 2},
    "budget": {"budget": 21},
    "normalise": {"normalise": {"mean": [0.5], "std": [0.5]}},
    "federation": {"federation": {"learning_rate": 0.1}},
    "training": {
        "network": {"name": "lenet_sigmoid", "weights": "trained"}, "training": {"epochs": 1, "learning_rate": 0.1},
    },
    "evaluator": {"evaluator": {"network": {"name": "mlp"}, "training": {"epochs": 1, "learning_rate": 0.1}}},
}  # fmt: skip


def test_everything_else_is():
    hashes = [config.Benchmark.model_validate({**minimal(), **change}).hash for change in CHANGES.values()]
    assert len({question().hash, config.Benchmark.model_validate(minimal()).hash, *hashes}) == len(CHANGES) + 1


def test_a_section_that_names_the_benchmarks_own_data_says_no_more_than_one_that_names_none():
    own = config.Benchmark.model_validate({**minimal(), "public": {"count": 8, "name": "digits"}})
    assert own.hash == config.Benchmark.model_validate(minimal()).hash


ATTACK = """
from dataclasses import dataclass, field


class Helper:
    steps: int = 7


@dataclass(frozen=True)
class Attack:
    steps: int = 100
    rate: float = 1.0e-3
    signs: bool = True
    name: str = "plain"
    many: list = field(default_factory=list)

    def reconstruct(self, seen, rng): ...
"""


def test_settings_that_repeat_the_attacks_defaults_change_no_hash(tmp_path):
    path = tmp_path / "attack.py"
    path.write_text(ATTACK)
    nothing = trial_lines.settings_hash(path, {})
    assert trial_lines.settings_hash(path, {"steps": 100, "rate": 0.001, "signs": True, "name": "plain"}) == nothing
    for settings in ({"steps": 7}, {"rate": 0.01}, {"signs": False}, {"many": []}, {"unknown": 1}):
        assert trial_lines.settings_hash(path, settings) != nothing, settings


def test_the_source_is_read_anew_when_it_changes(tmp_path):
    path = tmp_path / "attack.py"
    path.write_text(ATTACK)
    before = trial_lines.settings_hash(path, {"steps": 100})
    path.write_text(ATTACK.replace("steps: int = 100", "steps: int = 200"))
    assert trial_lines.settings_hash(path, {"steps": 100}) != before == trial_lines.settings_hash(path, {"steps": 200})


def test_old_and_new_hashes_of_committed_lines_are_in_one_to_one_relation():
    """Of benchmark and settings, as they were at f707e61 and as the mechanical migration made them."""
    boards: dict[str, list[list[str]]] = defaultdict(list)
    for row, hashes in json.loads(MIGRATION.read_text()).items():
        boards[row.rsplit(" ", 1)[0]].append(hashes)
    assert len(boards) == 176
    for board, rows in boards.items():
        old, new = {tuple(row[:2]) for row in rows}, {tuple(row[2:]) for row in rows}
        assert len(old) == len(new) == len(rows), f"{board}: two rows have come to share a key"
        assert len({row[0] for row in rows}) == len({row[2] for row in rows}) == 1


def test_every_committed_line_bears_a_hash_of_today_or_of_the_migration():
    """As long as no benchmark and no setting has changed since, the migration's hashes are those of the files."""
    moved = json.loads(MIGRATION.read_text())
    for scale in config.SCALES:
        results = Results.at(scale)
        for paper in config.paper_names():
            for board in config.params(paper).boards_at(scale):
                keys = trial_lines.present_keys(paper, results.benchmark(board))
                for variant, key in keys.items():
                    known = moved.get(f"{scale} {paper} {board} {variant}")
                    if known is not None and results.benchmark(board).version == 1 and known[2:] != [key[2], key[1]]:
                        lines = results.lines(paper, board)
                        assert not trial_lines.current(lines, keys).empty, f"{scale} {paper} {board} {variant}"


# ---------------------------------------------------------------------------------------------------------------------
# DVC: a copy of the content folders, with results and locks, in which things are changed.


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("copy") / "suite"
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in kept:
        if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def stale(folder: Path) -> dict[str, Any]:
    """What `dvc status` finds to be out of date: {stage: reasons}."""
    command = [str(Path(sys.executable).with_name("dvc")), "status", "--json"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return json.loads(said.splitlines()[-1])


def edited(path: Path, change) -> str:
    """Write what `change` makes of the YAML file; what it held before."""
    before = path.read_text()
    content = yaml.load(before, Loader=Yaml12)
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return before


def test_a_clean_copy_is_up_to_date(copied):
    assert stale(copied) == {}


def test_rewording_a_question_and_another_metric_stale_nothing(copied):
    path = copied / "benchmarks" / "lenet_cifar10_gradient.yaml"
    before = edited(path, lambda content: content["about"].update(question="Why?", metrics=["ssim", "psnr"]))
    try:
        assert stale(copied) == {}
    finally:
        path.write_text(before)


def test_a_benchmark_more_for_a_rival_stales_nothing_but_its_own_new_stages(copied):
    new = copied / "benchmarks" / "lenet_photos_gradient_new.yaml"
    new.write_bytes((copied / "benchmarks" / "lenet_cifar10_gradient.yaml").read_bytes())
    path = copied / "baselines" / "ig" / "params.yaml"
    before = edited(path, lambda content: content["on"].update({"lenet_photos_gradient_new": {"cosine": {"steps": 9}}}))
    try:
        stages = {name for name in stale(copied) if not name.startswith("leaderboard")}
        assert stages == {f"baselines/ig/dvc.yaml:ig@{scale}-lenet_photos_gradient_new" for scale in config.SCALES}
    finally:
        path.write_text(before)
        new.unlink()


def test_a_setting_on_one_board_stales_that_board_alone(copied):
    path = copied / "baselines" / "ig" / "params.yaml"
    before = edited(path, lambda content: content["on"]["resnet20_cifar10_gradient_b8"].update(cosine={"steps": 9}))
    try:
        assert set(stale(copied)) == {
            f"baselines/ig/dvc.yaml:ig@{s}-resnet20_cifar10_gradient_b8" for s in config.SCALES
        }
    finally:
        path.write_text(before)
