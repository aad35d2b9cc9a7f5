"""`leakboard federate`: a federation trained at the command line, measured round by round and drawn.

Heavy imports wait until the command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from leakboard.config import Images
from leakboard.config.files import checked_name
from leakboard.console import out_of, plainly, print_frame, progress, screen
from leakboard.errors import Fault

if TYPE_CHECKING:
    from leakboard.recipes.federation import FederationRecipe

LARGEST_SEED, DIGITS = 2**63 - 1, 4
PresetOption = Annotated[
    str, typer.Option(help="Clients / rounds / local epochs: quick 3/3/2, standard 5/10/5, extensive 10/20/10.")
]


def federate(
    preset: PresetOption = "quick",
    iid: Annotated[bool, typer.Option("--iid", help="Images evenly at random; so it is if nothing is said.")] = False,
    classes: Annotated[int | None, typer.Option(metavar="K", min=1, help="K classes a client.")] = None,
    dirichlet: Annotated[
        float | None, typer.Option(metavar="A", help="Each class by shares from Dirichlet(A).")
    ] = None,
    data: Annotated[str, typer.Option(help="A data set; its `train` is shared out, its `test` measures.")] = "mnist",
    images: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N images alone.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of network, partition and all draws.")] = 0,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where curves and pictures go.")] = None,
) -> None:
    """Train a federation of honest clients. Stopped, the same call goes on from there and loses a round at most."""
    with plainly():
        shared, place = partition_of(iid, classes, dirichlet), out_of(out)
        checked_name(data, "a data set")
        from leakboard.recipes import federation as kept
        from leakboard.run import machine

        machine.settle()
        recipe = kept.preset(preset, Images(name=data, count=images), shared, seed)
        name = f"{preset} federation on {data}"
        folder = trained(recipe, name)
        print_frame(told(recipe, place or folder, data).round(DIGITS), title=f"{name} ({folder.name})")
        screen.print(escape(f"curves and pictures: {place or folder}"), soft_wrap=True)


def partition_of(iid: bool, classes: int | None, dirichlet: float | None) -> dict[str, Any]:
    """The keys of a federation that say who holds what. Fault where two ways are asked for, or one that is none."""
    asked = [name for name, said in (("--iid", iid), ("--classes", classes), ("--dirichlet", dirichlet)) if said]
    if len(asked) > 1:
        raise Fault(f"{' and '.join(asked)}: images are spread in one way, expected one of them")
    if dirichlet is not None:
        if not 1e-3 <= dirichlet <= 1e6:
            raise Fault(f"--dirichlet {dirichlet}: expected a number from 0.001 to 1,000,000")
        return {"partition": "dirichlet", "beta": dirichlet}
    return {} if classes is None else {"partition": "classes", "classes_per_client": classes}


def trained(recipe: FederationRecipe, name: str) -> Path:
    """The folder of its rounds, all of which are there at the end; a bar counts them."""
    from leakboard.recipes import federation as kept

    folder = kept.folder_of(recipe)
    with progress("rounds") as report:
        kept.federation(recipe, report=lambda done: report(name, done, recipe.federation.rounds))
    return folder


def told(recipe: FederationRecipe, place: Path, data: str) -> Any:
    """Accuracy and loss by round, as a frame and as files in `place`, with the partition and what is known of it."""
    import pandas as pd

    from leakboard.board import federations
    from leakboard.recipes import federation as kept
    from leakboard.record.aggregate import write_json
    from leakboard.record.saving import write_text

    record, rows = kept.record(recipe), pd.DataFrame(kept.measured(recipe, Images(name=data, split="test")))
    write_text(place / "rounds.csv", rows.to_csv(index=False, lineterminator="\n"))
    write_json(place / "record.json", {**record, "recipe_said": recipe.said()})
    spec = recipe.federation
    title = f"{spec.clients} clients, {spec.partition} partition of {sum(record['sizes']):,} images of {data}"
    federations.training(place / "curves.png", rows, title)
    federations.partition(place / "partition.png", kept.holdings(recipe), left_out(record), title)
    return rows


def left_out(record: dict[str, Any]) -> str:
    """What nobody holds, in words; nothing is dropped in silence."""
    if record["share"] == 1:
        return ""
    missing = ", ".join(map(str, record["missing_classes"]))
    return f"{1 - record['share']:.0%} of the images are nobody's" + (f"; of classes {missing} all" if missing else "")
