"""What an attack spends: passes through models, queries and turns, and the snapshots that it offers on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    """Counts what one trial's attack spends, and keeps the snapshots that it offers.

    One evaluation is one pass over the benchmark's B images. Live and released models are charged by the image: a pass
    over n images is ceil(n / B) evaluations, and a query of a black box costs as many as it has images. Every other
    pass through the attack's private model is one evaluation. While somebody else computes (peers that train, a black
    box that answers, a snapshot that is copied) the clock stands still.

    share: of the clock's seconds, those of this trial; trials that share a computation share its time evenly.
    """

    def __init__(self, seen: Seen, clock: Clock, share: float) -> None:
        self.evaluations, self.clock, self.share = 0, clock, share
        self.snapshots: list[Snapshot] = []
        self.budget, self.shape = seen.budget, seen.shape
        by_image = isinstance(seen, (Participation, ReleasedModel))
        seen.model.register_forward_hook(self._images_passed if by_image else self._passed)
        seen.observer, seen.meter = self._keep, self._passed
        if isinstance(seen, Participation):
            seen.turns = self._metered_turns(seen.turns)
        if isinstance(seen, ReleasedModel):
            seen.query = self._metered_query(seen.query, seen.access == "black")

    def __deepcopy__(self, memo: dict) -> Meter:
        """A copy of the model counts here too."""
        return self

    @property
    def seconds(self) -> float:
        return self.clock.total * self.share

    def charge(self, evaluations: int) -> None:
        """BudgetSpent when there is less left."""
        self.evaluations += evaluations
        if self.budget is not None and self.evaluations > self.budget:
            raise BudgetSpent(f"more than the {self.budget} gradient evaluations of the benchmark")

    def _passed(self, *_: object) -> None:
        self.charge(1)

    def _images_passed(self, module: nn.Module, given: tuple[Tensor, ...], *_: object) -> None:
        self.charge(-(-len(given[0]) // self.shape[0]))

    def _metered_query(self, query: Callable[[Tensor], Tensor], black: bool) -> Callable[[Tensor], Tensor]:
        def metered(images: Tensor) -> Tensor:
            if not black:  # the attacker's own computation, on the released weights
                self.charge(-(-len(images) // self.shape[0]))
                return query(images)
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
        if images.ndim != 4 or images.shape[1:] != self.shape[1:]:
            raise ValueError(f"a snapshot has shape {tuple(images.shape)}, expected (M, {list(self.shape[1:])})")
        with self.clock.paused():
            copy = images.detach().float().cpu().clone()
            self.snapshots.append(Snapshot(step, self.evaluations, self.seconds, float(loss), copy.clamp(0, 1)))
