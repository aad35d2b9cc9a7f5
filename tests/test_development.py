"""Development victims: images after the official ones, to tune on, which no board ever reports."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import yaml
from toys import GRAY, ROOT, checkout, question, toy

from leakboard import config
from leakboard.config import Benchmark, ConfigError
from leakboard.data import DataError
from leakboard.data.loading import dataset_of
from leakboard.recipes.trained import needs_of
from leakboard.record import trial_lines
from leakboard.record.results import Results
from leakboard.run import development, tryout
from leakboard.run.stage import reproduce, stages
from leakboard.victim.secrets import (
    development_slice,
    development_trials,
    official_among,
    official_trials,
    public,
    secret,
    victim_slice,
)

NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.yaml") if path.name != "dvc.yaml")
# How many benchmarks without a defence have no development victims at most (one with a defence has those of the other);
# of live clients four, after all five digits that others hold.
NONE_LEFT = {"quick": 13, "paper": 27}


@functools.cache
def there(name: str, scale: config.Scale) -> range | str:
    """The development trials of a benchmark, or why there are none."""
    try:
        return development_trials(config.benchmark(name, scale))
    except DataError as error:
        return str(error)


def disjoint(name: str, scale: config.Scale) -> None:
    asked, trials = config.benchmark(name, scale), there(name, scale)
    if isinstance(trials, str):
        assert f"{name} has no development victims at {scale} scale" in trials and "official" in trials
        return
    assert 0 < len(trials) <= 100 and trials[0] >= asked.trials
    shown = [secret(asked, trial) for trial in (trials[0], trials[-1])]
    assert all(len(one.images) == asked.batch for one in shown)
    positions = development_slice(asked, trials).positions
    assert len(positions) == len(trials) * asked.batch, "an image stands in two trials"
    official = [development_slice(asked, [trial]).positions for trial in range(asked.trials)]
    assert not np.isin(positions, np.concatenate(official)).any()
    if asked.equal_labels is None and not asked.by_class:  # where classes take turns
        assert positions.min() > victim_slice(asked).positions.max()


@pytest.mark.parametrize("name", NAMES)
def test_they_come_after_the_official_ones_and_no_image_comes_twice(name: str, monkeypatch):
    monkeypatch.chdir(ROOT)
    disjoint(name, "quick")


@pytest.mark.parametrize("name", NAMES)
def test_so_they_do_at_paper_scale(name: str, real_data: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    if not isinstance(there(name, "paper"), str) or "is not here" not in str(there(name, "paper")):
        disjoint(name, "paper")


@pytest.mark.parametrize("scale", config.SCALES)
def test_most_benchmarks_have_some(scale: config.Scale, real_data: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    bare = [name for name in NAMES if not config.benchmark(name, scale).defence]
    assert sum(isinstance(there(name, scale), str) for name in bare) <= NONE_LEFT[scale]


def test_a_trial_names_the_same_images_however_many_are_official():
    few, more = question(), question(trials=10)
    assert development_trials(few)[0] == 2 and development_trials(more)[0] == 10
    assert secret(few, 10).images.equal(secret(more, 10).images)


def test_every_image_that_is_here_and_not_official_is_one():
    here = dataset_of(question().data).available
    assert development_slice(question(), development_trials(question(), 10_000)).positions.tolist() == here[2:].tolist()


def test_digits_hold_445_test_images_and_that_is_how_many_trials_there_are():
    assert development_trials(question(), most=10_000) == range(2, 445)
    assert development_trials(question(batch=2), most=10_000) == range(2, 222)
    assert development_trials(question(), most=5) == range(2, 7)
    with pytest.raises(DataError, match="445 images of digits test are here, 400 of them are official victims, and a"):
        development_trials(question(batch=200))


def test_public_images_and_training_sets_are_no_victims():
    shared = question(public={"split": "test", "start": 4, "count": 3})
    assert development_trials(shared, 1000) == range(7, 445), "the longest run of them"
    assert development_trials(shared, 2) == range(2, 4), "the first that is long enough"
    behind = question(public={"split": "test", "start": 2, "count": 3})
    assert development_trials(behind)[0] == 5 and public(behind) is not None
    recipe = {"images": {"split": "test", "start": 40}, "epochs": 1, "learning_rate": 0.1}
    trained = question(network={"name": "lenet_sigmoid", "weights": "trained"}, training=recipe)
    assert needs_of(trained) and development_trials(trained) == range(2, 40)
    everything = question(public={"split": "test", "start": 2, "count": 443})
    with pytest.raises(DataError, match="2 of them are official victims, 443 are public or trained on"):
        development_trials(everything)


def test_of_some_classes_or_up_to_a_count_they_are_the_next_ones():
    zeros = question(data={"name": "digits", "classes": [0]})
    assert {int(secret(zeros, trial).labels) for trial in development_trials(zeros)} == {0}
    counted = question(data={"name": "digits", "count": 6})
    assert development_trials(counted) == range(2, 6)


def test_equal_labels_go_on_being_dealt():
    asked = question(batch=4, equal_labels=3)
    trials = development_trials(asked)
    counts = secret(asked, trials[0]).labels.bincount(minlength=10)
    assert trials[0] == 2 and counts[2] == 3 and counts[3] == 1


def test_of_a_released_model_they_are_the_classes_that_no_official_trial_aims_at():
    asked = question("released", batch=2, trials=7)
    assert development_trials(asked) == range(7, 10)
    assert [int(secret(asked, trial).labels[0]) for trial in development_trials(asked)] == [7, 8, 9]
    with pytest.raises(DataError, match="10 classes of digits test can be targets, 10 of them are official"):
        development_trials(question("released", batch=2, trials=12))


@pytest.mark.parametrize(
    ("asked", "found"), [(None, range(2)), (range(1, 9), range(1, 2)), (range(1), range(1)), (range(60), range(2))]
)
def test_official_trials_end_where_the_benchmark_says(asked, found):
    assert official_trials(question(), asked) == official_among(question(), asked) == found
    assert not official_among(question(), range(2, 5))


def test_no_official_trial_is_a_message_that_shows_the_place_for_others():
    with pytest.raises(DataError, match=r"toy has 2 trials at quick scale, .* trial 5 is none of them.*--victims dev"):
        official_trials(question(), range(5, 9))


# ---------------------------------------------------------------------------------------------------------------------
# The board of a try.

CONTROL = {
    "version": 1,
    "title": "Controls",
    "variants": {"noise": {}, "mean": {}},
    "controls": ["noise", "mean"],
    "on": {"toy_gradient": {}},
}
OURS = "return Reconstruction(torch.rand(seen.shape, generator=rng))"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch) -> Path:
    """A checkout with a committed rival and controls that hand in grey images."""
    folder = checkout(tmp_path / "suite", GRAY, trials=2)
    (folder / "baselines" / "controls").mkdir()
    (folder / "baselines" / "controls" / "params.yaml").write_text(yaml.safe_dump(CONTROL))
    toy(folder / "baselines" / "controls", GRAY, name="attack")
    monkeypatch.chdir(folder)
    reproduce(stages(Results.at("quick"), None, None), workers=0, device="cpu")
    return folder


def board_of(suite: Path, asked: Benchmark, trials: range | None):
    path = toy(suite, OURS, name="ours")
    return development.trier("development")(str(path), asked, trials, "cpu", 0, lambda *state: None)


def test_the_board_holds_the_attack_and_the_controls_and_ranks_nobody(suite: Path):
    before = {path: path.read_bytes() for path in (suite / "results").rglob("*") if path.is_file()}
    board, picture, reasons = board_of(suite, config.benchmark("toy_gradient", "quick"), range(3))
    assert set(board["rank"]) == {"development"}
    assert set(board["attack"]) == {"ours / default", "controls / noise", "controls / mean"}, "and no committed rival"
    assert set(board["n"]) == {"3"} and reasons == [] and picture.is_file() and picture.is_relative_to(suite / "build")
    assert before == {path: path.read_bytes() for path in (suite / "results").rglob("*") if path.is_file()}


def test_all_rows_of_it_are_of_the_same_development_victims(suite: Path):
    asked = config.benchmark("toy_gradient", "quick")
    board_of(suite, asked, range(1, 3))
    for attack in ("ours", "controls"):
        folder = suite / "build" / "runs" / attack / "quick" / "toy_gradient"
        lines = trial_lines.read(folder / "trials.csv")
        assert set(lines["trial"]) == {3, 4}, attack
        assert lines.groupby("trial")["victim_sha"].nunique().tolist() == [1, 1]


def test_trials_count_from_the_first_development_victim_on():
    asked = question()
    assert development.chosen_of(asked, None) == range(2, 102)
    assert development.chosen_of(asked, range(1, 3)) == range(3, 5)
    assert development.chosen_of(asked, range(90, 500)) == range(92, 102)
    with pytest.raises(ConfigError, match=r"toy has 100 development trials at quick scale.* no trial 100"):
        development.chosen_of(asked, range(100, 101))


def test_other_victims_are_a_message():
    with pytest.raises(DataError, match="trial 5 is none of them"):
        development.trier("official")("dlg", question(), range(5, 9), "cpu", 0, lambda *state: None)
    with pytest.raises(ConfigError, match="no victims 'mine'; there are: official, development"):
        development.trier("mine")


def test_a_prior_that_was_trained_on_development_victims_is_refused(suite: Path):
    prior = """
    def prior(self, benchmark):
        from leakboard.config import Images
        from leakboard.config.recipes import Generator
        return Generator(images=Images(name="digits", split="test", start=3, count=2), epochs=1, batch=2)
    """
    path = toy(suite, OURS, methods=prior, name="seer")
    asked = question(threat={"knows": ("prior",)})
    with pytest.raises(DataError, match=r"share 1 images of digits test \(3\)"):
        development.tried(str(path), asked, range(2), "cpu", 0, lambda *state: None)


def test_a_try_at_one_scale_does_not_lie_with_one_at_another(suite: Path):
    folders = {
        tryout.folder_of(tryout.rows_of("toy", config.benchmark("toy_gradient", scale), "cpu"))
        for scale in config.SCALES
    }
    assert len(folders) == len(config.SCALES)
