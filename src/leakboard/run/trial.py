"""The protocol of one trial, top to bottom: secret -> leak -> clock -> reconstruct -> clock -> score -> record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leakboard import ENGINE
from leakboard.attack import contract
from leakboard.attack.clock import Clock, limit, peak_bytes, reset_peak
from leakboard.attack.untouched import sha_of, unchanged
from leakboard.config import Benchmark
from leakboard.recipes.classifier import state_sha
from leakboard.record.trial_lines import attack_sha, settings_hash
from leakboard.rng import generator, seed_of
from leakboard.run import machine
from leakboard.run.execution import LOOP, Execution
from leakboard.score import Scores, curve, match, score, stand_ins, time_to
from leakboard.threat import BudgetSpent, Public, Reconstruction, Seen
from leakboard.victim.leak import leak, threat_model
from leakboard.victim.network import network
from leakboard.victim.secrets import Secret, public, secret, shape_and_classes

Pictures = tuple[np.ndarray, np.ndarray]  # truth and reconstruction of one trial, each (B, C, H, W)


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
    """What a trial leaves: its line of `trials.csv`, its quality curve, and the images for the grid (B, C, H, W)."""

    line: dict[str, Any]
    curve: list[dict[str, Any]] = field(default_factory=list)
    true: Tensor | None = None
    got: Tensor | None = None

    def pictures(self) -> Pictures | None:
        """For the grid; no reconstruction from an attack on labels alone, and None from a skipped trial."""
        if self.true is None:
            return None
        return self.true.numpy(), (self.true[:0] if self.got is None else self.got).numpy()


@dataclass
class Snapshot:
    """A copy of the dummy images at one step; evaluations and seconds as spent so far."""

    step: int
    evaluations: int
    seconds: float
    loss: float
    images: Tensor


class Meter:
    """Counts every pass through the attack's private model, and keeps the snapshots that the attack offers.

    share: of the clock's seconds, those of this trial; trials that share a computation share its time evenly.
    """

    def __init__(self, seen: Seen, clock: Clock, share: float) -> None:
        self.evaluations, self.clock, self.share = 0, clock, share
        self.snapshots: list[Snapshot] = []
        self.budget, self.shape = seen.budget, seen.shape
        seen.model.register_forward_hook(self._count)
        seen.observer, seen.meter = self._keep, self._count

    def __deepcopy__(self, memo: dict) -> Meter:
        """A copy of the model counts here too."""
        return self

    @property
    def seconds(self) -> float:
        return self.clock.total * self.share

    def _count(self, *_: object) -> None:
        self.evaluations += 1
        if self.budget is not None and self.evaluations > self.budget:
            raise BudgetSpent(f"more than the {self.budget} gradient evaluations of the benchmark")

    def _keep(self, step: int, images: Tensor, loss: Tensor | float) -> None:
        if images.ndim != 4 or images.shape[1:] != self.shape[1:]:
            raise ValueError(f"a snapshot has shape {tuple(images.shape)}, expected (M, {list(self.shape[1:])})")
        with self.clock.paused():
            copy = images.detach().float().cpu().clone()
            self.snapshots.append(Snapshot(step, self.evaluations, self.seconds, float(loss), copy.clamp(0, 1)))


@dataclass
class Trial:
    """One trial under way: what is hidden, what the attack sees of it, and what is known of its line so far."""

    job: Job
    hidden: Secret
    seen: Seen
    line: dict[str, Any]

    @property
    def rng(self) -> torch.Generator:
        return generator("attack", self.job.benchmark.seed, self.job.trial)


def attempt(job: Job) -> Outcome:
    """Run one trial. Whatever the attack does, there is an outcome: a failed trial scores what noise scores."""
    return attempt_group((job,))[0]


def attempt_group(jobs: Sequence[Job]) -> list[Outcome]:
    """Trials of one variant on one benchmark as one computation; when that fails, each is run plainly and by itself."""
    first = jobs[0]
    attack = contract.configure(contract.load(first.path), first.settings)
    reason = skip_reason(attack, first.benchmark)
    if reason is not None:
        skipped = {"status": "skipped", "reason": reason}
        return [Outcome({**_identity(job, machine.device_of(job.device)), **skipped}) for job in jobs]
    begun = [begin(job, attack) for job in jobs]
    trials = [trial for trial in begun if isinstance(trial, Trial)]
    if len(trials) < len(jobs) > 1:
        return [attempt(replace(job, execution=LOOP)) for job in jobs]
    if not trials:
        return [outcome for outcome in begun if isinstance(outcome, Outcome)]
    clock = Clock(machine.device_of(first.device))
    meters = [Meter(trial.seen, clock, 1 / len(trials)) for trial in trials]
    reset_peak(clock.device)
    seconds = first.benchmark.timeout_seconds * len(trials)
    ends = reconstruct(attack, [trial.seen for trial in trials], [trial.rng for trial in trials], clock, seconds)
    if first.execution != LOOP and any(status["status"] != "ok" for _, status in ends):
        return [attempt(replace(job, execution=LOOP)) for job in jobs]
    peak = peak_bytes(clock.device)
    return [ended(*parts, peak) for parts in zip(trials, meters, ends, strict=True)]


def begin(job: Job, attack: contract.Attack) -> Trial | Outcome:
    """The secret, what leaks of it, and the attack's preparation; the outcome at once when that fails."""
    benchmark, device = job.benchmark, machine.device_of(job.device)
    hidden, pool = secret(benchmark, job.trial), public(benchmark)
    model = network(benchmark, job.trial).to(device)
    shown = None if pool is None else Public(pool.images.to(device), pool.labels.to(device))
    if benchmark.threat.conduct == "malicious":
        try:
            model = contract.craft(attack, model, shown, generator("craft", benchmark.seed, job.trial)).to(device)
        except Exception as error:
            return lost(job, **status_of(error))
    clients = generator("clients", benchmark.seed, job.trial)
    seen = leak(benchmark, hidden.to(device), model, shown, shape_and_classes(benchmark)[1], clients)
    seen.execution = job.execution.kind
    prepared = Clock(device)
    try:
        with unchanged([seen]), prepared.running():
            contract.prepare(attack, shown, generator("prepare", benchmark.seed))
    except Exception as error:
        return lost(job, **status_of(error))
    line = {**_identity(job, device), **_observed(hidden, model, seen), "prepare_seconds": prepared.total}
    return Trial(job, hidden, seen, line)


def ended(trial: Trial, meter: Meter, end: tuple[Reconstruction, dict[str, Any]], peak: int) -> Outcome:
    """The line of a trial that has run, and its score."""
    got, status = end
    line = {**trial.line, "seconds": meter.seconds, "peak_bytes": peak, **status}
    line |= {"evaluations": got.info.get("gradient_evaluations", meter.evaluations)}
    line |= {"restarts": got.info.get("restarts"), "loss": got.info.get("loss")}
    return judged(trial.job, line, trial.hidden, got, meter.snapshots)


def skip_reason(attack: contract.Attack, benchmark: Benchmark) -> str | None:
    """Why this attack does not run here: another kind of observation, or the attack's own reason."""
    kinds, offered = contract.accepts(type(attack)), threat_model(benchmark).sees
    if not issubclass(offered, kinds):
        return f"works on {' or '.join(kind.__name__ for kind in kinds)}, the benchmark shows {offered.__name__}"
    return attack.skips(benchmark) if hasattr(attack, "skips") else None


def reconstruct(
    attack: contract.Attack, seen: Sequence[Seen], rngs: Sequence[torch.Generator], clock: Clock, seconds: float
) -> list[tuple[Reconstruction, dict[str, Any]]]:
    """The attack under its clock. Nothing that it was given may change; a fault of any kind hands in no image."""
    shape, given = seen[0].shape, seen[0].labels is not None
    try:
        with unchanged(seen):
            with limit(seconds), clock.running():
                got = contract.reconstruct(attack, seen, rngs)
            got = [one.checked(shape) for one in got]
        return [(one, {"status": "ok"}) for one in got]
    except (Exception, SystemExit) as error:
        labels = None if given else torch.empty(0, dtype=torch.long)
        return [(Reconstruction(torch.empty(0, *shape[1:]), labels), status_of(error)) for _ in seen]


def status_of(error: BaseException) -> dict[str, str]:
    """What went wrong, as the status and reason of a trial line."""
    reason = f"{type(error).__name__}: {error}".split("\n")[0]
    if isinstance(error, TimeoutError):
        return {"status": "timeout", "reason": str(error)}
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return {"status": "out_of_memory", "reason": reason}
    return {"status": "failed", "reason": reason}


def judged(job: Job, line: dict[str, Any], hidden: Secret, got: Reconstruction, snapshots: list[Snapshot]) -> Outcome:
    """Score the reconstruction against the truth: the only place where the two meet."""
    # The draw of the control row `noise` on this trial.
    noise = torch.rand(hidden.images.shape, generator=generator("attack", job.benchmark.seed, job.trial))
    with_lpips = job.benchmark.scale == "paper"
    scores = score(hidden.images, hidden.labels, got.images, got.labels, noise, with_lpips)
    rows = curve(snapshots, hidden.images, noise)
    seconds, evaluations = time_to(rows)
    label_only = line["status"] == "ok" and not len(got.images) and got.labels is not None
    if not label_only:
        line |= scores.summary() | _each(scores) | {"seconds_to_20": seconds, "evaluations_to_20": evaluations}
    else:
        line |= {"label_accuracy": scores.summary()["label_accuracy"]}
    where = {"variant": job.variant, "trial": job.trial, "device_kind": line["device_kind"]}
    if label_only:
        return Outcome(line, true=hidden.images)
    shown = stand_ins(match(hidden.images, got.images), got.images, noise)
    return Outcome(line, [{**where, **row} for row in rows], hidden.images, shown)


def lost(job: Job, status: str = "failed", reason: str = "the worker process died twice on this trial") -> Outcome:
    """The outcome of a trial without a reconstruction: a failure that scores what noise scores."""
    device = machine.device_of(job.device)
    hidden = secret(job.benchmark, job.trial)
    line = {**_identity(job, device), **_observed(hidden, network(job.benchmark, job.trial), None)}
    line |= {"status": status, "reason": reason}
    labels = None if "labels" in job.benchmark.threat.knows else torch.empty(0, dtype=torch.long)
    return judged(job, line, hidden, Reconstruction(torch.empty(0, *hidden.images.shape[1:]), labels), [])


def _each(scores: Scores) -> dict[str, list[float]]:
    return {"mse_each": scores.mse, "psnr_each": scores.psnr}


def _identity(job: Job, device: torch.device) -> dict[str, Any]:
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
        "engine": ENGINE,
        "trial": job.trial,
        "seed": seed_of("attack", benchmark.seed, job.trial),
        "execution": str(job.execution),
        "commit": job.commit[0],
        "dirty": job.commit[1],
        **machine.describe(device),
    }


def _observed(hidden: Secret, model: torch.nn.Module, seen: Seen | None) -> dict[str, Any]:
    """What identifies the victim of a trial, and how large its gradient is (absent for other observations)."""
    gradient = getattr(seen, "gradient", None)
    norm = None if gradient is None else float(torch.stack([g.square().sum() for g in gradient]).sum().sqrt())
    shas = {"victim_sha": sha_of([hidden.images, hidden.labels]), "model_sha": state_sha(model.state_dict())}
    return {**shas, "gradient_norm": norm}
