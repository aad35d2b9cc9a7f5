"""One attack across the border: here calls are answered and counted, the clock is held, what comes back is checked."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leakboard.attack.inside import Task
from leakboard.attack.meter import Snapshot
from leakboard.attack.once import Parcel
from leakboard.attack.wire import WireError, plain, words
from leakboard.run.attacker import Attacker
from leakboard.run.box import BoxEnded, OutOfTime, box_of, dropped
from leakboard.score import nothing
from leakboard.threat import Participation, Reconstruction, ReleasedModel, Seen, Turn, due

LATE_SECONDS, LATE_A_BYTE = 0.03, 5e-9  # what a message may be late without a clock being wrong
MOST_COUNTED = 2**53
MOST_SNAPSHOTS = 4096  # of one trial; searches that start again offer their first steps again


@dataclass
class Attempt:
    """What came back of one computation. ends: one a trial; seconds: of the attack alone, all trials together.

    evaluations: as the attack's process declares them; of queries as they were answered.
    """

    ends: list[tuple[Reconstruction, dict[str, str]]]
    snapshots: list[list[Snapshot]]
    evaluations: list[int]
    seconds: float = 0.0
    peak_bytes: int | None = None


def attempted(
    attacker: Attacker,
    seen: Sequence[Seen],
    seeds: Sequence[int],
    device: torch.device,
    seconds: float,
    by_image: bool = True,
) -> Attempt:
    """Attack these trials as one computation. A process that dies is replaced once; a fault hands in no image."""
    given = Parcel([_sent(one) for one in seen])
    task = Task("attack", attacker.settings, (), tuple(seeds), str(device), by_image)
    exchange, before = _Exchange(seen, len(given)), 0.0
    for last in (False, True):
        box = box_of(attacker.path)
        exchange = _Exchange(seen, len(given), before, exchange.queried)
        try:
            for header, arrays in box.talk(task, given, seconds, exchange.answer):
                exchange.take(header, arrays)
            return exchange.attempt()
        except OutOfTime as error:
            dropped(box)
            return exchange.failed("timeout", str(error))
        except WireError as error:
            dropped(box)
            return exchange.failed("failed", f"the attack's process sent what is no message: {error}")
        except BoxEnded:
            dropped(box)
            if last or exchange.lived:
                return exchange.failed("failed", "the attack's process ended" + (" twice" if last else ""))
            before = exchange.wall()
        except BaseException:
            dropped(box)
            raise
    raise AssertionError


def _sent(seen: Seen) -> Seen:
    """What crosses the border: without what only this side can answer."""
    if isinstance(seen, Participation):
        return dataclasses.replace(seen, turns=None)  # type: ignore[arg-type]
    return dataclasses.replace(seen, query=None) if isinstance(seen, ReleasedModel) else seen  # type: ignore[arg-type]


class _Exchange:
    """One computation as this side sees it: it answers calls, counts them, takes snapshots and holds the clock."""

    def __init__(
        self, seen: Sequence[Seen], sent: int, before: float = 0.0, queried: Sequence[int] | None = None
    ) -> None:
        """sent: bytes of what is seen. before, queried: seconds and queries of a process that died over the same."""
        self.seen, self.sent, self.before = seen, sent, before
        self.rounds: list[Iterator[Turn] | None] = [None] * len(seen)
        self.turns: list[Turn | None] = [None] * len(seen)
        self.queried = list(queried or [0] * len(seen))
        self.snapshots: list[list[Snapshot]] = [[] for _ in seen]
        self.began: float | None = None
        self.stopped: float | None = None
        self.answering = 0.0
        self.handed_in: tuple[dict[str, Any], dict[str, Tensor]] = {}, {}
        self.end: dict[str, Any] = {}

    @property
    def lived(self) -> bool:
        """Whether a live round has begun: it cannot be lived through again."""
        return any(rounds is not None for rounds in self.rounds)

    def answer(self, header: dict[str, Any], arrays: dict[str, Tensor]) -> tuple[Any, tuple[str, str] | None]:
        """(answer, None), or (None, (kind, words)) of a refusal."""
        before = time.monotonic()
        try:
            trial = self._trial(header)
            calls = {"query": self._query, "turn": self._turn, "submit": self._submit}
            if header["call"] not in calls:
                raise ValueError(f"no call {header['call']!r}")
            return calls[header["call"]](trial, arrays)
        except Exception as error:
            return None, ("ValueError", words(error))
        finally:
            if self.stopped is None:
                self.answering += time.monotonic() - before

    def _trial(self, header: dict[str, Any]) -> int:
        trial = header.get("trial")
        if type(trial) is not int or not 0 <= trial < len(self.seen):
            raise ValueError(f"no trial {trial!r}")
        return trial

    def _query(self, trial: int, arrays: dict[str, Tensor]) -> tuple[Any, tuple[str, str] | None]:
        seen, images = self.seen[trial], arrays.get("images")
        if not isinstance(seen, ReleasedModel):
            raise ValueError("there is no model to query")
        if images is None or images.ndim != 4 or not images.is_floating_point():
            raise ValueError("a query is one array of images (N, C, H, W)")
        if images.shape[1:] != seen.shape[1:]:
            raise ValueError(f"queried images have shape {tuple(images.shape)}, expected (N, {list(seen.shape[1:])})")
        self.queried[trial] += len(images)
        if seen.budget is not None and self.queried[trial] > seen.budget:
            return None, ("BudgetSpent", f"more than the {seen.budget} gradient evaluations of the benchmark")
        return seen.query(images.float().to(seen.device)).detach().cpu(), None

    def _turn(self, trial: int, arrays: dict[str, Tensor]) -> tuple[Any, None]:
        seen, rounds = self.seen[trial], self.rounds[trial]
        if not isinstance(seen, Participation):
            raise ValueError("there are no rounds to take part in")
        if rounds is None:
            rounds = self.rounds[trial] = iter(seen)
        turn = self.turns[trial] = next(rounds, None)
        if turn is None:
            return None, None
        return (turn.round, turn.model.state_dict(), (turn.own_data.images, turn.own_data.labels)), None

    def _submit(self, trial: int, arrays: dict[str, Tensor]) -> tuple[None, None]:
        turn = self.turns[trial]
        if turn is None:
            raise ValueError("there is no turn to answer")
        turn.submit(arrays)
        return None, None

    def take(self, header: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        """A message that wants no answer. What is handed in first is handed in."""
        if "ready" in header and self.began is None:
            self.began = time.monotonic()
        elif "stopped" in header and self.stopped is None:
            self.stopped = time.monotonic()
            self.handed_in = header, arrays
        elif "snapshot" in header and self.stopped is None:
            before = time.monotonic()
            self._snapshot(header, arrays)
            self.answering += time.monotonic() - before
        elif "end" in header:
            self.end = header

    def wall(self) -> float:
        """Seconds between the moment when it was given what it attacks and its last step or now, without answers."""
        if self.began is None:
            return self.before
        return self.before + max(0.0, (self.stopped or time.monotonic()) - self.began - self.answering)

    def _snapshot(self, header: dict[str, Any], arrays: dict[str, Tensor]) -> None:
        try:
            trial, said, images = self._trial(header), dict(header["snapshot"]), arrays["images"]
            step, evaluations = _count(said["step"]), _count(said["evaluations"])
            seconds, loss = float(said["seconds"]), float(said["loss"])
        except Exception as error:
            raise WireError(f"no snapshot: {words(error)}") from None
        kept, shape = self.snapshots[trial], self.seen[trial].shape
        fits = images.ndim == 4 and images.shape[1:] == shape[1:] and len(images) <= shape[0]
        if not fits or not due(step) or len(kept) >= MOST_SNAPSHOTS:
            raise WireError(f"a snapshot at step {step} of shape {tuple(images.shape)}")
        spent = self._bounded(seconds, 1 / len(self.seen))
        kept.append(Snapshot(step, evaluations, spent, loss, images.float().clamp(0, 1)))

    def _bounded(self, declared: float, share: float = 1.0) -> float:
        """The attack's own clock where this side's agrees with it, else this side's."""
        wall, late = self.wall() * share, LATE_SECONDS + LATE_A_BYTE * self.sent
        fine = math.isfinite(declared) and 0.9 * wall - late <= declared <= wall + late
        return declared if fine else wall

    def attempt(self) -> Attempt:
        said, arrays = self.handed_in
        if self.end.get("status") != "ok":
            return self.failed(_status(self.end), plain(self.end.get("reason", "")))
        ends = said.get("stopped")
        if not isinstance(ends, list) or len(ends) != len(self.seen):
            return self.failed("failed", f"handed in nothing, expected {len(self.seen)} reconstructions")
        return self._spent([self._checked(trial, info, arrays) for trial, info in enumerate(ends)])

    def _checked(self, trial: int, info: Any, arrays: dict[str, Tensor]) -> tuple[Reconstruction, dict[str, str]]:
        seen, images = self.seen[trial], arrays.get(f"{trial} images", torch.empty(0))
        said = {name: info.get(name) for name in ("restarts", "loss")} if isinstance(info, dict) else {}
        try:
            numbers = {name: float(value) for name, value in said.items() if isinstance(value, (int, float))}
            got = Reconstruction(images, arrays.get(f"{trial} labels"), numbers).checked(seen.shape)
        except Exception as error:
            return self._none(trial), {"status": "failed", "reason": words(error)}
        return got, {"status": "ok"}

    def _none(self, trial: int) -> Reconstruction:
        return nothing(self.seen[trial].shape, labelled=self.seen[trial].labels is None)

    def failed(self, status: str, reason: str) -> Attempt:
        trials = range(len(self.seen))
        return self._spent([(self._none(trial), {"status": status, "reason": reason}) for trial in trials])

    def _spent(self, ends: list[tuple[Reconstruction, dict[str, str]]]) -> Attempt:
        seconds, peak, declared = (self.end.get(name) for name in ("seconds", "peak_bytes", "evaluations"))
        if not isinstance(declared, list) or not all(_counts(one) for one in declared):
            declared = []
        counted = [max(pair) for pair in itertools.zip_longest(declared, self.queried, fillvalue=0)][: len(self.seen)]
        spent = self._bounded(seconds + self.before) if isinstance(seconds, float) else self.wall()
        return Attempt(ends, self.snapshots, counted, spent, peak if _counts(peak) else None)


def _counts(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST_COUNTED


def _count(value: Any) -> int:
    if not _counts(value):
        raise ValueError(f"{value!r} is no count")
    return int(value)


def _status(header: dict[str, Any]) -> str:
    status = header.get("status")
    return status if status in ("failed", "out_of_memory") else "failed"
