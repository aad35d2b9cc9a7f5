"""The attack's side of the border: the process that holds what is seen and the attack, and nothing else.

It is born of a fork server that has imported torch and no data. What it is told to do arrives as pickles that the
runner wrote; what it answers are numbers and arrays (`wire`). Live rounds and black-box queries are calls back.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import pickle
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from leakboard.attack import contract
from leakboard.attack.clock import Clock, peak_bytes, reset_peak
from leakboard.attack.crafted import described
from leakboard.attack.meter import Meter, Snapshot
from leakboard.attack.once import Kept
from leakboard.attack.untouched import unchanged
from leakboard.attack.wire import number, packed, words
from leakboard.threat import BudgetSpent, Participation, Public, Reconstruction, ReleasedModel, Seen, Turn


@dataclass(frozen=True)
class Task:
    """What the runner asks. do: `kinds`, `skips`, `prior`, `craft` or `attack`; given: the arguments of the others.

    What is attacked comes in a message of its own, once the attack has been loaded and configured: no code of it runs
    beside an observation before this side's clock, and the runner's, have begun. settings: the attack's own. seeds: of
    the generators that it draws from, one a trial. device: of all that is given. by_image: how passes are charged (see
    `Meter`). number: told with every answer.
    """

    do: str
    settings: dict[str, Any] = field(default_factory=dict)
    given: tuple[Any, ...] = ()
    seeds: tuple[int, ...] = ()
    device: str = "cpu"
    by_image: bool = True
    number: int = 0

    def rngs(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in self.seeds]


def serve(connection: Connection, path: Path, folder: Path, settle: Callable[[], None]) -> None:
    """Do what the runner asks with the attack at `path` until it hangs up; `folder` is this process's own."""
    os.setsid()
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined] # it may have children
    threading.Thread(target=_end_with_the_runner, args=(folder,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):  # the runner has hung up, or is gone with the folder
        os.chdir(folder)
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        calls = Calls(connection)
        while True:
            calls.kept.receive(connection)
            task: Task = calls.kept.opened(connection.recv_bytes())
            calls.task = task.number
            _restore()
            settle()
            try:
                _do(task, path, calls)
            except BaseException as error:
                calls.tell({"end": "fault", "reason": words(error), "fault": isinstance(error, contract.AttackError)})


def _end_with_the_runner(folder: Path) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def _restore() -> None:
    """What an earlier trial of this attack may have changed for the next one."""
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.default_generator.manual_seed(0)  # `torch.manual_seed` writes a stack trace for a CUDA that is not there
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(0)
    random.seed(0)
    numpy.random.seed(0)  # noqa: NPY002 - the global one


def _do(task: Task, path: Path, calls: Calls) -> None:
    source = contract.load(path)
    attack = contract.configure(source, task.settings)
    if task.do == "attack":
        _attack(attack, task, calls)
    elif task.do == "kinds":
        calls.tell({"end": [kind.__name__ for kind in contract.accepts(source)], "has": _offers(source)})
    elif task.do == "skips":
        reason = contract.says(attack, "skips", *task.given)
        calls.tell({"end": None if reason is None else str(reason)})
    elif task.do == "prior":
        recipe = contract.says(attack, "prior", *task.given)
        calls.tell({"end": None if recipe is None else {"kind": recipe.kind, **recipe.model_dump(mode="json")}})
    else:
        model, public = task.given
        form, state = described(contract.craft(attack, copy.deepcopy(model), public, task.rngs()[0]), model)
        calls.tell({"end": form}, state)


def _offers(source: type) -> list[str]:
    return [name for name in ("craft", "prior", "skips", "reconstruct_many") if hasattr(source, name)]


class Calls:
    """What goes across the border: calls, which the runner answers or refuses in words, and what it is only told.

    kept: what came across once and stays.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection, self.kept, self.task = connection, Kept(), 0

    def tell(self, header: dict[str, Any], arrays: dict[str, Tensor] | None = None) -> None:
        self.connection.send_bytes(packed({**header, "task": self.task}, arrays or {}))

    def __call__(self, name: str, trial: int, arrays: dict[str, Tensor]) -> Any:
        self.tell({"call": name, "trial": trial}, arrays)
        answer, refusal = pickle.loads(self.connection.recv_bytes())
        if refusal is not None:
            kind, reason = refusal
            raise (BudgetSpent if kind == "BudgetSpent" else ValueError)(reason)
        return answer

    def told(self, trial: int, shot: Snapshot) -> None:
        header = {"step": shot.step, "evaluations": shot.evaluations, "seconds": shot.seconds, "loss": shot.loss}
        self.tell({"snapshot": header, "trial": trial}, {"images": shot.images})


def _attack(attack: contract.Attack, task: Task, calls: Calls) -> None:
    """The attack under its clock. Nothing that it was given may change; a fault of any kind hands in no image."""
    device, clock = torch.device(task.device), Clock(torch.device(task.device))
    reset_peak(device)
    calls.tell({"ready": True})
    seen: list[Seen] = calls.kept.opened(calls.connection.recv_bytes())
    for trial, one in enumerate(seen):
        _connect(one, trial, calls)
    share = 1 / len(seen)
    meters = [Meter(one, clock, share, _teller(calls, trial), task.by_image) for trial, one in enumerate(seen)]
    status, reason, handed_in = "ok", "", False
    try:
        with unchanged(seen):
            with clock.running():
                got = contract.reconstruct(attack, seen, task.rngs())
            _hand_in(got, calls)
            handed_in = True
    except BaseException as error:
        status, reason = _status_of(error), words(error)
    spent = next((meter.refusal for meter in meters if meter.refusal), None)
    if spent is not None:  # whoever caught the error and went on has still spent too much
        status, reason = "failed", f"BudgetSpent: {spent}"
    if not handed_in:
        calls.tell({"stopped": None})
    cost = {"seconds": clock.total, "peak_bytes": peak_bytes(device), "evaluations": [m.evaluations for m in meters]}
    calls.tell({"end": "attack", "status": status, "reason": reason, **cost})


def _hand_in(got: Sequence[Any], calls: Calls) -> None:
    """All reconstructions at once, and for good: what comes later says nothing about images."""
    parts = [_plain(one, trial) for trial, one in enumerate(got)]
    arrays = {name: tensor for _, named in parts for name, tensor in named.items()}
    calls.tell({"stopped": [info for info, _ in parts]}, arrays)


def _teller(calls: Calls, trial: int) -> Callable[[Snapshot], None]:
    return lambda shot: calls.told(trial, shot)


def _status_of(error: BaseException) -> str:
    return "out_of_memory" if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) else "failed"


def _plain(got: Any, trial: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What one trial handed in, as numbers and arrays; ValueError names what is none."""
    if not isinstance(got, Reconstruction):
        raise ValueError(f"handed in a {type(got).__name__}, expected a Reconstruction")
    arrays = {f"{trial} images": _dense(got.images, "images")}
    if got.labels is not None:
        arrays[f"{trial} labels"] = _dense(got.labels, "labels")
    info = got.info if isinstance(got.info, dict) else {}
    return {name: number(info.get(name)) for name in ("restarts", "loss")}, arrays


def _dense(value: Any, what: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} are a {type(value).__name__}, expected a tensor")
    return value.detach().as_subclass(Tensor)


def _connect(seen: Seen, trial: int, calls: Calls) -> None:
    """Live rounds and a black box answer from the other side; a white box is the attacker's own copy."""
    if isinstance(seen, Participation):
        seen.turns = lambda: _turns(seen, trial, calls)
    elif isinstance(seen, ReleasedModel) and seen.access == "black":
        seen.query = lambda images: calls("query", trial, {"images": images}).to(seen.device)
    elif isinstance(seen, ReleasedModel):
        seen.query = lambda images: seen.model(images).softmax(1)


def _turns(seen: Participation, trial: int, calls: Calls) -> Iterator[Turn]:
    while (answer := calls("turn", trial, {})) is not None:
        number, state, own = answer
        model = _as_given(seen.model)
        model.load_state_dict(state)
        yield Turn(number, model, Public(*own), lambda state: _accepted(calls, trial, state))


def _accepted(calls: Calls, trial: int, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict):
        raise ValueError(f"the answer is a {type(state).__name__}, expected a state dict")
    calls("submit", trial, {str(key): value for key, value in state.items()})
    return {key: value.detach().clone() for key, value in state.items()}


def _as_given(model: nn.Module) -> nn.Module:
    """A copy of the global model without the hooks that count passes through another one."""
    copied = copy.deepcopy(model)
    copied._forward_hooks.clear()
    return copied
