"""What an attack spends: passes through models, queries and turns, and the snapshots that it offers on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leakboard.attack.clock import Clock
from leakboard.threat import BudgetSpent, Participation, ReleasedModel, Seen, Turn


@dataclass
class Snapshot:
    """A copy of the dummy images at one step; evaluations and seconds as spent so far."""

    step: int
    evaluations: int
    seconds: float
    loss: float
    images: Tensor


class Meter:
    """Counts what one trial's attack spends, and tells the snapshots that it offers.

    One evaluation is one pass over the benchmark's B images, so a pass over n images is ceil(n / B) evaluations, of
    every copy that `vmap` runs at once; a query of a black box costs as many as it has images. While somebody else
    computes (peers that train, a black box that answers, a snapshot that is copied) the clock stands still.

    All this is counted inside of the attack's own process: it is what the attack declares. Queries and turns are
    counted once more where they are answered.

    share: of the clock's seconds, those of this trial; trials that share a computation share its time evenly.
    by_image False: a pass counts as one whatever it holds, unless the model is live or released (engine 1).
    """

    def __init__(
        self, seen: Seen, clock: Clock, share: float, tell: Callable[[Snapshot], None], by_image: bool = True
    ) -> None:
        self.evaluations, self.clock, self.share, self.tell = 0, clock, share, tell
        self.budget, self.shape = seen.budget, seen.shape
        self.refusal: str | None = None
        by_image = by_image or isinstance(seen, (Participation, ReleasedModel))
        seen.model.register_forward_hook(self._images_passed if by_image else self._passed)
        seen.observer, seen.meter = self._keep, self._spent
        if isinstance(seen, Participation):
            seen.turns = self._metered_turns(seen.turns)
        if isinstance(seen, ReleasedModel) and seen.access == "black":
            seen.query = self._metered_query(seen.query)

    def __deepcopy__(self, memo: dict) -> Meter:
        """A copy of the model counts here too."""
        return self

    @property
    def seconds(self) -> float:
        return self.clock.total * self.share

    def charge(self, evaluations: int) -> None:
        """BudgetSpent when there is less left; once refused, for good."""
        self.evaluations += evaluations
        if self.budget is not None and self.evaluations > self.budget:
            self.refusal = f"more than the {self.budget} gradient evaluations of the benchmark"
            raise BudgetSpent(self.refusal)

    def _spent(self) -> None:
        self.charge(1)

    def _passed(self, module: nn.Module, given: tuple[Tensor, ...], *_: object) -> None:
        self.charge(_copies(given[0]))

    def _images_passed(self, module: nn.Module, given: tuple[Tensor, ...], *_: object) -> None:
        self.charge(-(-len(given[0]) * _copies(given[0]) // self.shape[0]))

    def _metered_query(self, query: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def metered(images: Tensor) -> Tensor:
            self.charge(len(images))
            with self.clock.paused():
                return query(images)

        return metered

    def _metered_turns(self, turns: Callable[[], Iterator[Turn]]) -> Callable[[], Iterator[Turn]]:
        def metered() -> Iterator[Turn]:
            rounds = turns()
            while True:
                with self.clock.paused():  # the honest clients train
                    turn = next(rounds, None)
                if turn is None:
                    return
                turn.model.register_forward_hook(self._images_passed)
                yield turn

        return metered

    def _keep(self, step: int, images: Tensor, loss: Tensor | float) -> None:
        """Only plain numbers and tensors: what has code of its own could run it while the clock stands still."""
        if type(loss) not in (int, float, Tensor) or (isinstance(loss, Tensor) and loss.numel() != 1):
            raise TypeError(f"the loss of a snapshot is a {type(loss).__name__}, expected one number")
        if type(images) is not Tensor and type(images) is not nn.Parameter:
            raise TypeError(f"the images of a snapshot are a {type(images).__name__}, expected a tensor")
        if images.ndim != 4 or images.shape[1:] != self.shape[1:] or len(images) > self.shape[0]:
            raise ValueError(f"a snapshot has shape {tuple(images.shape)}, expected (M, {list(self.shape[1:])})")
        if type(step) is not int or step < 1:
            raise ValueError(f"a snapshot at step {step!r}, expected a whole number from 1 on")
        with self.clock.paused():
            copy = images.detach().float().cpu().clone()
            self.tell(Snapshot(step, self.evaluations, self.seconds, float(loss), copy.clamp(0, 1)))


def _copies(images: Tensor) -> int:
    """How many copies of a pass `vmap` runs as one, be it around `grad` or inside of it."""
    functorch = torch._C._functorch
    whole = images
    while functorch.is_batchedtensor(whole) or functorch.is_gradtrackingtensor(whole):
        whole = functorch.get_unwrapped(whole)
    return max(1, whole.numel() // max(1, images.numel()))
