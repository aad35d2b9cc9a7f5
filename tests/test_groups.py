"""Groups of trials: one computation, the results of single ones; a group that fails is taken apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toys import GRAY, ROOT, checkout, question, toy

from leakboard import config
from leakboard.record import speed, trial_lines
from leakboard.record.results import Results
from leakboard.run.execution import LOOP, Execution
from leakboard.run.stage import reproduce, stages
from leakboard.run.trial import Job, attempt_group

STACKED = Execution("stacked", 4)
MANY = """
    def reconstruct_many(self, seen, rng):
        {body}
"""


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def group_of(path, execution: Execution = STACKED, **more) -> list:
    job = Job(question(**more), "toy", "only", path, {}, 1, 0, execution=execution)
    return [outcome.line for outcome in attempt_group([replace(job, trial=trial) for trial in range(4)])]


def test_a_group_shares_its_seconds_and_spends_by_trial(tmp_path):
    body = "[one.spend() for one in seen for _ in range(5)]; time.sleep(0.4)\n"
    body += "        return [Reconstruction(torch.rand(one.shape, generator=r)) for one, r in zip(seen, rng)]"
    lines = group_of(toy(tmp_path, GRAY, methods=MANY.format(body=body)))
    assert [line["status"] for line in lines] == ["ok"] * 4
    assert {line["execution"] for line in lines} == {"stacked x4"} and {line["evaluations"] for line in lines} == {5}
    assert len({line["seconds"] for line in lines}) == 1 and lines[0]["seconds"] >= 0.1
    assert len({line["mse"] for line in lines}) == 4


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('together I fail')",
        "return []",
        "seen[2].gradient[0].mul_(2); return [Reconstruction(torch.zeros(one.shape)) for one in seen]",
        "return [Reconstruction(torch.full(one.shape, torch.nan)) for one in seen]",
        "[seen[1].spend() for _ in range(21)]; return [Reconstruction(torch.zeros(one.shape)) for one in seen]",
    ],
    ids=["raises", "too few", "edits", "not finite", "spends too much"],
)
def test_a_group_that_fails_is_run_plainly_trial_by_trial(body, tmp_path):
    lines = group_of(toy(tmp_path, GRAY, methods=MANY.format(body=body)))
    assert [(line["status"], line["execution"]) for line in lines] == [("ok", "loop")] * 4
    assert [line["trial"] for line in lines] == [0, 1, 2, 3]


def test_an_attack_without_reconstruct_many_is_run_one_by_one(tmp_path):
    assert {line["execution"] for line in group_of(toy(tmp_path, GRAY))} == {"loop"}


def settings_on(name: str, **changes) -> Job:
    asked = config.benchmark(name, "quick").model_copy(update=changes)
    path = ROOT / "baselines" / "dlg" / "attack.py"
    return Job(asked, "dlg", "joint", path, {}, 1, 0, execution=Execution("stacked", 64))


def test_stacked_dlg_succeeds_as_often_as_single_runs():
    """64 starts on digits. The trajectories part ways by rounding; how often they arrive does not."""
    job = settings_on("lenet_mnist_gradient", budget=120)
    jobs = [replace(job, trial=trial) for trial in range(100, 164)]
    together = [outcome.line for outcome in attempt_group(jobs)]
    alone = [attempt_group([replace(one, execution=LOOP)])[0].line for one in jobs]
    assert {line["execution"] for line in together} == {"stacked x64"}
    rates = [sum(line["mse"] < 1e-3 for line in lines) / 64 for lines in (together, alone)]
    agree = sum((a["mse"] < 1e-3) == (b["mse"] < 1e-3) for a, b in zip(together, alone, strict=True)) / 64
    assert rates[1] > 0.3, "some must arrive for the comparison to mean anything"
    assert abs(rates[0] - rates[1]) <= 0.12 and agree >= 0.8, (rates, agree)  # 0.12: binomial 95 % half-width at 64
    first = together[0]["evaluations"], alone[0]["evaluations"]
    assert abs(first[0] - first[1]) <= 5 or max(first) == 120


# ---------------------------------------------------------------------------------------------------------------------
# Stages.

TOGETHER = MANY.format(
    body="return [Reconstruction(torch.rand(one.shape, generator=r) * (1 if len(seen) > 1 else 0)) for one, r in "
    "zip(seen, rng)]"
)


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A checkout with a toy paper of six trials, for which the table chose groups of four."""
    folder = checkout(tmp_path / "suite", GRAY, trials=6, methods=TOGETHER)
    monkeypatch.chdir(folder)
    speed.write(
        speed.path("quick"), [speed.Measured("toy_gradient", "toy", "cpu", "stacked", 4, *[1.0] * 5, 0, chosen=True)]
    )
    return folder


def run_into(results, trials=None) -> int:
    return reproduce(stages(Results.at("quick", results), "toy", None), trials=trials, workers=0)


def store(results):
    return trial_lines.read(results / "quick" / "papers" / "toy" / "toy_gradient" / "trials.csv")


def test_a_stage_runs_whole_groups_and_keeps_what_was_asked_for(suite, tmp_path):
    assert run_into(tmp_path / "whole") == 6
    whole = store(tmp_path / "whole")
    assert whole["execution"].tolist() == ["stacked x4"] * 6 and whole["trial"].tolist() == list(range(6))
    for part in (range(0, 3), range(3, 6)):
        assert run_into(tmp_path / "parts", part) == 3
    parts = store(tmp_path / "parts")
    assert parts["mse"].tolist() == whole["mse"].tolist(), "a split falls through a group and changes no bit"
    assert run_into(tmp_path / "parts") == 0


def test_a_line_of_the_loop_answers_for_every_execution(suite, tmp_path):
    run_into(tmp_path / "out", range(1, 2))
    lines = store(tmp_path / "out")
    path = tmp_path / "out" / "quick" / "papers" / "toy" / "toy_gradient" / "trials.csv"
    trial_lines.write(path, lines.assign(execution="loop"))
    assert run_into(tmp_path / "out", range(2)) == 1
    trial_lines.write(path, lines.assign(execution="compiled"))
    assert run_into(tmp_path / "out", range(2)) == 2


@pytest.mark.parametrize(
    "how", [LOOP, Execution("stacked", 16), Execution("compiled"), Execution("cuda_graph", 4)], ids=str
)
def test_an_execution_is_found_by_what_lines_call_it(how):
    assert Execution.named(str(how)) == how


@pytest.mark.parametrize("name", ["", "loop x4", "stacked x", "stacked x0", "stacked xx", "vectorised", "nan"])
def test_what_no_execution_is_called_is_none(name):
    assert Execution.named(name) is None
