"""A paper's folder as typed objects: `params.yaml`, the attack's numbers, and `published.yaml`, the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from leakboard import metrics
from leakboard.config.benchmark import Benchmark, Scale
from leakboard.config.kinds import Cell, Count, Different, Flag, Line, Name, Note, NotNegative, Number, Setting, Value
from leakboard.config.sections import Sees, Strict
from leakboard.errors import brief


def _metric(name: str) -> str:
    if name not in metrics.METRICS:
        raise ValueError(f"no metric {brief(name)}; there are: {', '.join(metrics.METRICS)}")
    return name


Settings = dict[Setting, Value]
Rows = dict[Name, Settings | None]
Metric = Annotated[str, AfterValidator(_metric)]


class Params(Strict):
    """`baselines/<paper>/params.yaml`: which rows there are and on which boards they stand.

    variants: {row: the attack's settings}. on: {benchmark: {row: settings that differ there}}; with no row named,
    all rows stand there. quick_only: as `on`, of boards whose paper scale nobody has run yet. sees, truth: {row:
    the kinds of observation, or of truth, that it stands on}, where not all. elsewhere: as `on`, of benchmarks that
    no board shows the paper on. controls: rows that do not attack, such as a prior that nothing is asked of; they
    bear no rank, and what is claimed to work must be above them.
    """

    version: Count
    title: Cell
    variants: Rows = Field(min_length=1)
    on: dict[Name, Rows]
    quick_only: dict[Name, Rows] = Field(default_factory=dict)
    sees: dict[Name, Annotated[tuple[Sees, ...], Different]] = Field(default_factory=dict)
    truth: dict[Name, Annotated[tuple[Literal["images", "labels", "classes"], ...], Different]] = Field(
        default_factory=dict
    )
    elsewhere: dict[Name, Rows] = Field(default_factory=dict)
    controls: Annotated[tuple[Name, ...], Different] = ()

    @model_validator(mode="after")
    def _rows_are_variants(self) -> Params:
        boards = [rows for there in (self.on, self.quick_only, self.elsewhere) for rows in there.values()]
        rows: list[Iterable[str]] = [self.sees, self.truth, self.controls, *boards]
        unknown = sorted({row for named in rows for row in named} - set(self.variants))
        if unknown:
            raise ValueError(f"no variant {', '.join(unknown)}; there are: {', '.join(self.variants)}")
        if twice := sorted(self.on.keys() & self.quick_only.keys()):
            raise ValueError(f"{', '.join(twice)}: under `on` and under `quick_only`")
        return self

    @property
    def boards(self) -> dict[str, Rows]:
        """The benchmarks that the paper stands on, at whichever scale."""
        return {**self.on, **self.quick_only}

    def boards_at(self, scale: Scale) -> tuple[str, ...]:
        """Those that it has results on at this scale."""
        return tuple(self.on if scale == "paper" else self.boards)

    def variants_on(self, benchmark: Benchmark) -> dict[str, Settings]:
        """{row: its settings} on this benchmark; none where the paper does not stand on it."""
        if benchmark.name not in self.boards:
            return {}
        here = self.boards[benchmark.name] or self.variants
        return {name: chosen for name, chosen in self.fitting(benchmark).items() if name in here}

    def fitting(self, benchmark: Benchmark) -> dict[str, Settings]:
        """{row: its settings} of the rows that could stand on this benchmark: what they need is seen and asked for."""
        sees, truth = benchmark.threat.sees, metrics.judged_against(benchmark.metrics[0])
        rows = [name for name in self.variants if sees in self.sees.get(name, (sees,))]
        return {name: self.settings(name, benchmark.name) for name in rows if truth in self.truth.get(name, (truth,))}

    def settings(self, variant: str, benchmark: str) -> Settings:
        """The settings of a row on a benchmark, whether or not it stands on its board."""
        there = {**self.elsewhere, **self.boards}.get(benchmark, {})
        return {**(self.variants[variant] or {}), **(there.get(variant) or {})}


class Entry(Strict):
    """What a number and a claim share.

    gates: a miss without a cause is a failure. cause: why a miss is true, as far as committed trials back it.
    provenance: verified (read in the source), secondary (in another one), figure (read off one) or memory, which are
    shown and never gate; theorem; ours, a claim that no paper makes. post_hoc: it was set after a look at trials of
    its rows, which running them again does not undo.
    """

    metric: Metric
    where: Line
    provenance: Literal["verified", "figure", "secondary", "memory", "theorem", "ours"]
    cause: Note = ""
    post_hoc: Flag = False
    scale: Annotated[tuple[Scale, ...], Different] = ("paper",)

    @field_validator("scale", mode="before")
    @classmethod
    def _one_scale_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class PublishedNumber(Entry):
    """A number that the paper printed."""

    run: Name
    variant: Name
    value: Number
    tolerance: NotNegative
    gates: Flag = False

    @model_validator(mode="after")
    def _only_verified_gates(self) -> PublishedNumber:
        if self.gates and self.provenance in ("memory", "figure"):
            raise ValueError(f"`gates` with `provenance: {self.provenance}`: such a number is shown and never gates")
        if self.provenance == "ours":
            raise ValueError("`provenance: ours`: a number of our own is no published one")
        return self


class Row(Strict):
    """One side of a claim: a row of a board."""

    run: Name
    variant: Name
    paper: Name | None = None


class Claim(Entry):
    """A relation between two rows, judged on the 95 % interval of the paired difference left - right.

    `>`: the difference exceeds `margin`; `>=`: it is not below -margin. With `right` absent, left is compared to
    `value`: `<` its interval lies below, `>` above.
    """

    says: Line
    left: Row
    relation: Literal[">", ">=", "<", "<="]
    right: Row | None = None
    value: Number | None = None
    margin: NotNegative = 0.0
    gates: Flag = True

    @model_validator(mode="after")
    def _one_right_side(self) -> Claim:
        if (self.right is None) == (self.value is None):
            raise ValueError("a claim compares with either `right` or `value`")
        return self


class Published(Strict):
    """`baselines/<paper>/published.yaml`."""

    paper: Line
    citation: Line
    numbers: tuple[PublishedNumber, ...] = ()
    claims: tuple[Claim, ...] = ()

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every row that the file speaks of, with its place in the file."""
        for index, number in enumerate(self.numbers):
            yield f"numbers.{index}", Row(run=number.run, variant=number.variant)
        for index, claim in enumerate(self.claims):
            yield from ((f"claims.{index}", side) for side in (claim.left, claim.right) if side is not None)
