"""`leakboard check --rerun`: a committed trial attacked again gives its line; whatever was changed since is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from toys import GRAY, checkout

from leakboard import config
from leakboard.errors import Fault
from leakboard.record import speed, trial_lines
from leakboard.record.results import Results
from leakboard.run import audit, kept
from leakboard.run.stage import reproduce, stages

NOISE = """
images = torch.rand(seen.shape, generator=rng)
seen.snapshot(1, images, 1.0)
return Reconstruction(images)
"""
TOGETHER = """
    def reconstruct_many(self, seen, rng):
        share = 1 if len(seen) > 1 else 0.5  # shows whether the trial ran in a group
        return [Reconstruction(torch.rand(one.shape, generator=r) * share) for one, r in zip(seen, rng)]
"""
ANOTHER = "another processor"


def committed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout at `folder` with its results; returns the store."""
    monkeypatch.chdir(folder)
    reproduce(stages(Results.at("quick"), "toy", None), workers=0, device="cpu")
    return store()


def store() -> Path:
    return Results.at("quick").folder("toy", "toy_gradient") / "trials.csv"


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one paper with two committed trials."""
    folder = checkout(tmp_path / "suite", NOISE, trials=2)
    committed(folder, monkeypatch)
    return folder


def rerun(count: int = 2, **more) -> list[audit.Compared]:
    return audit.rerun([Results.at("quick")], count, 0, **more)


def changed(**cells: object) -> None:
    """The store with other cells in every line."""
    trial_lines.write(store(), trial_lines.read(store()).assign(**cells))


def test_what_is_committed_comes_out_again_bit_for_bit(suite: Path) -> None:
    told: list[pd.DataFrame] = []
    reported: list[tuple] = []
    found = rerun(told=told.append, report=lambda *state: reported.append(state))
    assert [one.verdict for one in found] == ["same bits"] * 2 and not audit.differ(found)
    assert told[0]["trial"].tolist() != [] and set(told[0]["trial"]) == {0, 1}
    assert list(told[0].columns) == ["scale", "paper", "benchmark", "variant", "trial", "execution", "seconds"]
    assert [state[1:3] for state in reported] == [(1, 2), (2, 2)]
    shown = audit.table(found)
    assert shown["verdict"].tolist() == ["same bits"] * 2 and shown["why"].tolist() == ["", ""]


def test_workers_compute_the_same(suite: Path) -> None:
    assert [one.verdict for one in rerun(workers=1)] == ["same bits"] * 2


STORED = {
    "a mean": {"mse": 0.123},
    "numbers of images": {"mse_each": "0.123"},
    "a label accuracy": {"label_accuracy": 0.5},
    "evaluations": {"evaluations": 7.0},
    "the gradient": {"gradient_norm": 1.0},
    "the reconstruction": {"reconstruction_sha": "0" * 12},
    "the victim": {"victim_sha": "0" * 12},
    "the network": {"model_sha": "0" * 12},
    "the seed": {"seed": 1},
    "the source": {"attack_sha": "0" * 12},
    "an unknown execution": {"execution": "loop x4"},
}


@pytest.mark.parametrize("what", STORED)
def test_a_stored_value_that_was_changed_is_named(what: str, suite: Path) -> None:
    (name,) = STORED[what]
    changed(**STORED[what])
    (found,) = rerun(1)
    assert found.verdict == "differs" and audit.differ([found])
    assert name in found.why and "toy_gradient" in found.mend and "`" in found.mend
    assert found.drawn.name[:4] == ("quick", "toy", "toy_gradient", "only")


def attack() -> Path:
    return config.root() / "baselines" / "toy" / "attack.py"


def test_an_attack_whose_source_changed_is_told_to_be_run_again(suite: Path) -> None:
    attack().write_text(attack().read_text() + "# a word\n")
    (found,) = rerun(1)
    assert found.verdict == "differs" and found.why.startswith("attack_sha")
    assert "`leakboard reproduce toy toy_gradient --scale quick`" in found.mend


def test_an_attack_that_does_something_else_under_its_old_name_is_found(suite: Path) -> None:
    attack().write_text(attack().read_text().replace("generator=rng)", "generator=rng) / 2"))
    changed(attack_sha=trial_lines.attack_sha(attack()))
    (found,) = rerun(1)
    assert found.verdict == "differs" and "mse" in found.why


def test_a_trial_that_fails_now_is_a_difference_with_its_reason(suite: Path) -> None:
    attack().write_text(attack().read_text().replace("return Reconstruction(images)", "raise ValueError('rude')"))
    changed(attack_sha=trial_lines.attack_sha(attack()))
    (found,) = rerun(1)
    assert found.verdict == "differs" and "status ok in the line, failed here" in found.why and "rude" in found.why


def test_metrics_that_are_newer_than_a_line_are_not_compared(suite: Path) -> None:
    changed(ssim=float("nan"), reconstruction_sha="")
    assert rerun(1)[0].verdict == "same bits"


def started(factor: float) -> None:
    """The committed curves with another first snapshot."""
    path = store().with_name("curve.csv")
    curves = kept.read_curves(path)
    kept.write_curves(path, curves.assign(mse=curves["mse"] * factor))


ELSEWHERE: dict[str, tuple[float, float | None, str]] = {  # name: (stored over true metric, curve over true, verdict)
    "as here": (1.0, 1.0, "within 1e-4"),
    "rounded differently": (1 + 5e-5, 1.0, "within 1e-4"),
    "too good": (1 + 2e-3, 1.5, "differs"),
    "too bad": (1 - 2e-3, 1.5, "differs"),
    "started alike": (1.1, 1 + 5e-4, "drifted"),
    "started otherwise": (1.1, 1 + 2e-3, "differs"),
    "no curve": (1.1, None, "differs"),
}


@pytest.mark.parametrize("how", ELSEWHERE)
def test_a_line_of_another_machine_is_held_to_its_metric(how: str, suite: Path) -> None:
    factor, first, verdict = ELSEWHERE[how]
    lines = trial_lines.read(store())
    changed(device=ANOTHER, psnr=lines["psnr"] * factor, mse_each="1", loss=5.0)
    started(first) if first else store().with_name("curve.csv").unlink()
    found = rerun(2)
    assert [one.verdict for one in found] == [verdict] * 2
    assert all(ANOTHER in one.why for one in found) and audit.differ(found) == (verdict == "differs")


@pytest.mark.parametrize("name", ["victim_sha", "seed"])
def test_the_victim_is_the_same_on_every_machine(name: str, suite: Path) -> None:
    changed(device=ANOTHER, **{name: 5 if name == "seed" else "0" * 12})
    assert rerun(1)[0].verdict == "differs"


def test_weights_that_are_computed_may_differ_in_their_last_bits_elsewhere(suite: Path) -> None:
    changed(device=ANOTHER, model_sha="0" * 12)
    assert rerun(1)[0].verdict == "within 1e-4"


@pytest.mark.parametrize("cell", [{"torch": "1.0"}, {"threads": 8.0}, {"execution": "stacked x2"}])
def test_bits_are_asked_for_only_where_all_of_the_machine_agrees(cell: dict[str, object], suite: Path) -> None:
    changed(mse_each="1", **cell)
    assert rerun(1)[0].verdict == "within 1e-4"


def test_a_trial_of_a_group_is_computed_with_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkout(tmp_path / "suite", GRAY, trials=4, methods=TOGETHER)
    monkeypatch.chdir(folder)
    chosen = speed.Measured("toy_gradient", "toy", "cpu", "stacked", 4, *[1.0] * 5, 0, chosen=True)
    speed.write(speed.path("quick"), [chosen])
    committed(folder, monkeypatch)
    assert set(trial_lines.read(store())["execution"]) == {"stacked x4"}
    speed.path("quick").unlink()  # what is chosen today is not asked: the line says how it was computed
    assert [one.verdict for one in rerun(3)] == ["same bits"] * 3


UNFIT: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "slow": lambda lines: lines.assign(seconds=61.0),
    "slow with its group": lambda lines: lines.assign(seconds=4.0, execution="stacked x16"),
    "failed": lambda lines: lines.assign(status="failed"),
    "cuda": lambda lines: lines.assign(device_kind="cuda"),
    "of no row": lambda lines: lines.assign(variant="gone"),
    "development": lambda lines: lines.assign(trial=lines["trial"] + 2),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_is_not_drawn(kind: str, suite: Path) -> None:
    trial_lines.write(store(), UNFIT[kind](trial_lines.read(store())))
    with pytest.raises(Fault, match="no trial to attack again"):
        audit.draw([Results.at("quick")], 1, 0)


def test_trials_whose_data_is_not_here_are_not_drawn(suite: Path) -> None:
    question = suite / "benchmarks" / "toy_gradient.yaml"
    question.write_text(question.read_text().replace("name: digits", "name: celeba"))
    with pytest.raises(Fault, match="of none of them data and weights are here"):
        audit.draw([Results.at("quick")], 1, 0)


def test_the_draw_is_repeatable_and_rows_take_turns(suite: Path) -> None:
    params = suite / "baselines" / "toy" / "params.yaml"
    params.write_text(params.read_text().replace("variants:\n", "variants:\n  other: {path: a}\n"))
    reproduce(stages(Results.at("quick"), "toy", None), workers=0, device="cpu")

    def drawn(seed: int, count: int = 4) -> list[tuple]:
        return [one.name for one in audit.draw([Results.at("quick")], count, seed)]

    assert drawn(1) == drawn(1) and len({tuple(drawn(seed)) for seed in range(8)}) > 1
    for seed in range(4):
        assert {name[3] for name in drawn(seed, 2)} == {"only", "other"} and len(set(drawn(seed))) == 4
    assert drawn(0, 100) == drawn(0), "there are no more"
