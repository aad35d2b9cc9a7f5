"""An attack on what an observer of a real federation wrote down: the log says what is seen, a benchmark what is known.

Nobody here has the truth. So nothing is scored and no board gets a row; what comes out is there to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from leakboard import engine_of
from leakboard.attack.untouched import sha_of
from leakboard.board import figures
from leakboard.config import Benchmark, ConfigError, digest
from leakboard.federation.log import Logged, read
from leakboard.federation.rounds import Message, MessageError, fitting, state_of, update_of
from leakboard.record import saving
from leakboard.rng import seed_of
from leakboard.run import kept, machine
from leakboard.run.attacker import Attacker
from leakboard.run.development import Tried
from leakboard.run.exchange import attempted
from leakboard.run.jobs import Rows
from leakboard.run.observation import public_on, skip_reason
from leakboard.run.opened import Report
from leakboard.run.trained import prior_of
from leakboard.run.tryout import keys_of, rows_of, runs
from leakboard.threat import KINDS, Gradient, ModelUpdate, Seen
from leakboard.victim.leak import federation_of, known_of, shared_by_all
from leakboard.victim.network import network
from leakboard.victim.secrets import shape_and_classes


def reader(log: str, victims: str) -> Callable[..., Tried]:
    """What tries an attack on the messages of a log, called as on victims; workers are of no use to it.

    ConfigError where other victims are asked for than those of the log.
    """
    if victims != "official":
        raise ConfigError(f"--victims {victims}: found --messages beside it, whose clients are the victims")
    return lambda attack, benchmark, chosen, device, workers, report: attacked(
        attack, benchmark, Path(log), chosen, device, report
    )


def attacked(attack: str, benchmark: Benchmark, log: Path, chosen: range | None, device: str, report: Report) -> Tried:
    """(a line for every message and variant, the picture of what was handed in, why rows failed throughout).

    chosen: which messages, counted over all rounds. One after the other; a call that was interrupted goes on where it
    stood, as long as attack, settings, benchmark and log are the same.
    """
    machine.settle()
    pairs = [(logged, message) for logged in read(log) for message in logged.messages]
    numbers = [number for number in chosen or range(len(pairs)) if number < len(pairs)]
    if not numbers:
        raise ConfigError(f"{log} holds {len(pairs)} messages, the first one is 0; none of them was asked for")
    rows = rows_of(attack, benchmark, device)
    folder = _folder(rows, pairs)
    place = kept.Place(folder, folder)
    place.prepare()
    lines = _there(place.file)
    asked = [(variant, number) for number in numbers for variant in rows.variants]
    there = {(line["variant"], line["message"]) for line in lines}
    for done, (variant, number) in enumerate(asked, 1):
        if (variant, number) not in there:
            lines.append(_attacked(rows, variant, number, *pairs[number], place.reconstructions))
            saving.write_text(place.file, pd.DataFrame(lines).to_csv(index=False))
        report(f"{rows.attack} {log}", done, len(asked), "", "reconstructions")
    shown = pd.DataFrame([line for line in lines if line["message"] in numbers])
    _draw(place, shown)
    hidden = ["message"] if shown["reason"].any() else ["message", "reason"]  # why some failed is seen beside them
    return shown.drop(columns=hidden), place.folder / "grid.png", _failed(rows, shown)


def seen_of(benchmark: Benchmark, logged: Logged, message: Message, device: torch.device) -> Seen:
    """What the server saw of one client: its update, or of one plain step its gradient. Nobody tells it labels.

    ConfigError where the benchmark sees anything else; MessageError where the log is of another network.
    """
    kind = KINDS[benchmark.threat.sees]
    if kind not in (Gradient, ModelUpdate) or benchmark.threat.conduct == "malicious":
        raise ConfigError(
            f"{benchmark.name}: a log is read for honest attackers that see 'gradient' or 'update', found a "
            f"{benchmark.threat.conduct} one that sees {benchmark.threat.sees!r}"
        )
    where, spec = f"round {logged.number}", federation_of(benchmark)
    model = network(benchmark, 0).to(device)
    model.load_state_dict(fitting(logged.before, state_of(model), f"{where}: the global model"))
    sent = fitting(message.state, state_of(model), f"{where}: the message of client {message.client}")
    change = update_of(model, model.state_dict(), sent)
    shape, classes = shape_and_classes(benchmark)
    loss, pool = nn.CrossEntropyLoss(), public_on(benchmark, device)
    shared = shared_by_all(benchmark, model, loss, (message.images, *shape), classes, pool, device)
    if kind is Gradient:
        return Gradient(**shared, gradient=tuple(-part / spec.learning_rate for part in change))
    return ModelUpdate(**shared, update=change, local=known_of(benchmark, message.images))


def _there(file: Path) -> list[dict[str, Any]]:
    """What an earlier call has done."""
    if not file.is_file():
        return []
    return pd.read_csv(file, dtype={"labels": str}, keep_default_na=False, na_values={"loss": ""}).to_dict("records")


def _attacked(rows: Rows, variant: str, number: int, logged: Logged, message: Message, folder: Path) -> dict[str, Any]:
    """One line; what was handed in is kept. A message that no round would take is a failure of its line alone."""
    line = {
        "message": number, "round": logged.number, "client": message.client, "images": message.images,
        "variant": variant,
    }  # fmt: skip
    attacker, device = Attacker(rows.path, dict(rows.variants[variant])), machine.device_of(rows.device)
    benchmark = _as_logged(rows.benchmark, message)
    reason = skip_reason(attacker, benchmark)
    if reason is not None:
        return {**line, "status": "skipped", "reason": reason}
    try:
        seen = seen_of(benchmark, logged, message, device)
    except MessageError as error:
        return {**line, "status": "failed", "reason": str(error)}
    seen.prior = prior_of(attacker, benchmark, device)
    seed, by_image = seed_of("attack", benchmark.seed, number), engine_of(rows.attack) > 1
    got = attempted(attacker, [seen], [seed], device, benchmark.timeout_seconds, by_image)
    ((handed_in, status),) = got.ends
    kept.keep(folder, variant, number, handed_in, None)
    labels = None if handed_in.labels is None else " ".join(map(str, handed_in.labels.tolist()))
    spent = {"evaluations": got.evaluations[0], "seconds": round(got.seconds, 3)}
    return {**line, "reason": "", **status, "labels": labels, "loss": handed_in.info.get("loss"), **spent}


def _as_logged(benchmark: Benchmark, message: Message) -> Benchmark:
    """The benchmark's question of this message: of as many images as it stands for, and without their labels."""
    known = [word for word in benchmark.threat.knows if word != "labels"]
    threat = benchmark.threat.model_copy(update={"knows": known})
    return benchmark.model_copy(update={"batch": message.images, "threat": threat})


def _folder(rows: Rows, pairs: list[tuple[Logged, Message]]) -> Path:
    """Where this attack on this log lies: whatever changes in either gives another place."""
    states = {f"{logged.number}/{one.client}": sha_of([*logged.before.values(), *one.state.values()])
              for logged, one in pairs}  # fmt: skip
    name = digest({"keys": {key: list(value) for key, value in keys_of(rows).items()}, "states": states})
    return runs() / rows.attack / "messages" / f"{rows.benchmark.name}-{name}"


def _draw(place: kept.Place, lines: pd.DataFrame) -> None:
    """The first images of every reconstruction, a line each."""
    shown = {}
    for line in lines[lines["status"] == "ok"].to_dict("records")[: kept.GRID]:
        got = kept.kept(place.reconstructions, line["variant"], line["message"])
        if got is not None and len(got.images):
            name = f"round {line['round']}, client {line['client']}: {line['variant']}"
            shown[name] = got.images[: kept.GRID].numpy()
    if shown:
        figures.lapse(place.folder / "grid.png", shown, [""] * max(map(len, shown.values())))


def _failed(rows: Rows, lines: pd.DataFrame) -> list[str]:
    """A sentence for every variant of which nothing came: why not."""
    return [
        f"{rows.attack} / {variant}: no message of {len(own)} was reconstructed; the first: {own['reason'].iloc[0]}"
        for variant, own in lines.groupby("variant")
        if not (own["status"] == "ok").any()
    ]
