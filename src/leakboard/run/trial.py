"""The protocol of one trial, top to bottom: observe -> attack, across the border -> judge -> record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leakboard import engine_of
from leakboard.attack.meter import Snapshot
from leakboard.attack.untouched import sha_of
from leakboard.config import Benchmark
from leakboard.recipes.classifier import state_sha
from leakboard.record.trial_lines import attack_sha, settings_hash
from leakboard.rng import seed_of
from leakboard.run import machine
from leakboard.run.attacker import Attacker, CraftError
from leakboard.run.exchange import Attempt, attempted
from leakboard.run.execution import LOOP, Execution
from leakboard.run.judgement import judged
from leakboard.run.kept import Frames, Pictures
from leakboard.run.observation import observe, skip_reason
from leakboard.run.trained import training_seconds
from leakboard.score import curve, nothing, time_to
from leakboard.threat import Reconstruction, Seen
from leakboard.victim.network import network
from leakboard.victim.secrets import Secret, secret


@dataclass(frozen=True)
class Job:
    """One trial to run. Picklable: the attack is a path and settings, never a class.

    execution: how the attack computes (`execution.py`); the size of the group it is part of stands in its name.
    """

    benchmark: Benchmark
    attack: str
    variant: str
    path: Path
    settings: dict[str, Any]
    attack_version: int
    trial: int
    device: str = "cpu"
    commit: tuple[str, bool] = ("", True)
    execution: Execution = LOOP


@dataclass
class Outcome:
    """What a trial leaves: its line of `trials.csv`, its curve, what was handed in, and pictures for the grid.

    frames: of a class, the first image on the way (S, C, H, W) and the steps (S,) at which it was shown.
    """

    line: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)
    got: Reconstruction | None = None
    pictures: Pictures | None = None
    frames: Frames | None = None


def attempt(job: Job) -> Outcome:
    """Run one trial. Whatever the attack does, there is an outcome: a failed trial scores what noise scores."""
    return attempt_group((job,))[0]


def attempt_group(jobs: Sequence[Job]) -> list[Outcome]:
    """Trials of one variant on one benchmark as one computation; when that fails, each is run plainly and by itself."""
    first = jobs[0]
    attack = Attacker(first.path, first.settings)
    reason = skip_reason(attack, first.benchmark)
    if reason is not None:
        skipped = {"status": "skipped", "reason": reason}
        return [Outcome({**_identity(job), **skipped}) for job in jobs]
    try:
        observed = [observe(job.benchmark, job.trial, attack, machine.device_of(job.device)) for job in jobs]
    except CraftError as error:
        if len(jobs) > 1:
            return [attempt(replace(job, execution=LOOP)) for job in jobs]
        return [lost(first, "failed", str(error))]
    lines = [_line(job, one.hidden, one.model, one.seen) for job, one in zip(jobs, observed, strict=True)]
    got = _attacked(jobs, attack, [one.seen for one in observed])
    if first.execution != LOOP and any(status["status"] != "ok" for _, status in got.ends):
        return [attempt(replace(job, execution=LOOP)) for job in jobs]
    prepared = {"prepare_seconds": training_seconds(attack, first.benchmark, first.trial), "peak_bytes": got.peak_bytes}
    return [
        _ended(job, {**line, **prepared}, observed[index].hidden, got, index)
        for index, (job, line) in enumerate(zip(jobs, lines, strict=True))
    ]


def _attacked(jobs: Sequence[Job], attack: Attacker, seen: Sequence[Seen]) -> Attempt:
    """The attack on the other side of the border, on all these trials at once."""
    first = jobs[0]
    for one in seen:
        one.execution = first.execution.kind
    seeds = [seed_of("attack", job.benchmark.seed, job.trial) for job in jobs]
    seconds = first.benchmark.timeout_seconds * len(jobs)
    by_image = engine_of(first.attack) > 1
    return attempted(attack, seen, seeds, machine.device_of(first.device), seconds, by_image)


def _ended(job: Job, line: dict[str, Any], hidden: Secret, got: Attempt, index: int) -> Outcome:
    """The line of a trial that has run, and what it is judged to be worth. Seconds are shared evenly."""
    one, status = got.ends[index]
    spent = {"seconds": got.seconds / len(got.ends), "evaluations": got.evaluations[index]}
    own = {"restarts": one.info.get("restarts"), "loss": one.info.get("loss")}
    return _outcome(job, {**line, **spent, **status, **own}, hidden, one, got.snapshots[index])


def lost(job: Job, status: str = "failed", reason: str = "the worker process died twice on this trial") -> Outcome:
    """The outcome of a trial without a reconstruction: a failure that scores what noise scores."""
    hidden, model = secret(job.benchmark, job.trial), network(job.benchmark, job.trial)
    line = {**_line(job, hidden, model, None), "status": status, "reason": reason}
    labelled = "labels" not in job.benchmark.threat.knows
    return _outcome(job, line, hidden, nothing(tuple(hidden.images.shape), labelled), [])


def _outcome(job: Job, line: dict[str, Any], hidden: Secret, got: Reconstruction, snapshots: list[Snapshot]) -> Outcome:
    """Judge a trial and put its parts together."""
    verdict = judged(job.benchmark, job.trial, hidden, got)
    shown = _to_the_end(snapshots, line, got, job) if verdict.compares else []
    rows = curve(shown, verdict.truth.images, verdict.truth.noise)
    reached = dict(zip(("seconds_to_20", "evaluations_to_20"), time_to(rows), strict=True)) if verdict.compares else {}
    where = {"variant": job.variant, "trial": job.trial, "device_kind": line["device_kind"]}
    line = {**line, **verdict.scores, **reached, "reconstruction_sha": sha_of([got.images])}
    frames = None if verdict.compares else _frames(snapshots)
    return Outcome(line, [{**where, **row} for row in rows], got, verdict.pictures, frames)


def _frames(snapshots: Sequence[Snapshot]) -> Frames | None:
    shown = [(one.step, one.images[0].numpy()) for one in snapshots if len(one.images)]
    return (np.array([step for step, _ in shown]), np.stack([image for _, image in shown])) if shown else None


def _to_the_end(snapshots: list[Snapshot], line: dict[str, Any], got: Reconstruction, job: Job) -> list[Snapshot]:
    """Snapshots and, after the last of them, what was handed in at the whole cost: a curve ends where its board does.

    Its step is counted on by one, as this side knows of no other.
    """
    if not snapshots or line["status"] != "ok" or engine_of(job.attack) < 2:
        return snapshots
    last = snapshots[-1]
    if last.images.shape == got.images.shape and torch.equal(last.images, got.images):
        return snapshots
    loss = last.loss if line["loss"] is None else line["loss"]
    return [*snapshots, Snapshot(last.step + 1, line["evaluations"], line["seconds"], loss, got.images)]


def _identity(job: Job) -> dict[str, Any]:
    benchmark = job.benchmark
    return {
        "attack": job.attack,
        "variant": job.variant,
        "benchmark": benchmark.name,
        "scale": benchmark.scale,
        "benchmark_version": benchmark.version,
        "benchmark_hash": benchmark.hash,
        "attack_version": job.attack_version,
        "attack_sha": attack_sha(job.path),
        "settings_hash": settings_hash(job.path, job.settings),
        "engine": engine_of(job.attack),
        "trial": job.trial,
        "seed": seed_of("attack", benchmark.seed, job.trial),
        "execution": str(job.execution),
        "commit": job.commit[0],
        "dirty": job.commit[1],
        **machine.describe(machine.device_of(job.device)),
    }


def _line(job: Job, hidden: Secret, model: torch.nn.Module, seen: Seen | None) -> dict[str, Any]:
    """What identifies a trial and its victim, and how large its gradient is (absent for other observations)."""
    gradient = getattr(seen, "gradient", None)
    norm = None if gradient is None else float(torch.stack([g.square().sum() for g in gradient]).sum().sqrt())
    shas = {"victim_sha": sha_of([hidden.images, hidden.labels]), "model_sha": state_sha(model.state_dict())}
    return {**_identity(job), **shas, "gradient_norm": norm}
