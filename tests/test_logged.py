"""What an observer of a federation wrote down, and attacks on it."""

from __future__ import annotations

import pytest
import torch
from federated_toys import LOSS, PLAIN, held, small
from safetensors.torch import save_file
from typer.testing import CliRunner

from leakboard import config
from leakboard.cli import app
from leakboard.config import ConfigError
from leakboard.federation import log
from leakboard.federation.clients import honest
from leakboard.federation.rounds import Message, Plan, Round, derived, rounds
from leakboard.federation.rules import average
from leakboard.rng import generator
from leakboard.run import logged
from leakboard.run.execution import LOOP
from leakboard.run.trial import Job, attempt
from leakboard.run.workers import silent
from leakboard.victim.network import network
from leakboard.victim.secrets import secret

BENCHMARK = "cnn3_cifar10_update"


@pytest.fixture
def asked():
    return config.benchmark(BENCHMARK, "quick")


@pytest.fixture
def lived(asked):
    """The round in which the victim of trial 0 sends its update, and with it that of trial 1."""
    clients = [honest(secret(asked, trial), asked.federation, LOSS) for trial in (0, 1)]
    draws = lambda number, who: generator("clients", asked.seed, who)  # noqa: E731
    return next(rounds(network(asked, 0), clients, average, draws, Plan(range(1))))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Runs are kept elsewhere."""
    monkeypatch.setattr(logged, "runs", lambda: tmp_path / "runs")
    return tmp_path / "log"


def test_rounds_come_back_as_they_were_seen(tmp_path):
    clients = [honest(held(5), PLAIN, LOSS), honest(held(7, 1), PLAIN, LOSS)]
    there = list(rounds(small("batch norm"), clients, average, derived("log"), Plan(range(12))))
    for one in reversed(there):
        log.write(tmp_path, one)
    log.write(tmp_path, there[3])  # a server that has started again
    back = log.read(tmp_path)
    assert [one.number for one in back] == list(range(12))
    for one, other in zip(there, back, strict=True):
        pairs = [(one.before, other.before), (one.after, other.after)]
        for mine, theirs in zip(one.received, other.messages, strict=True):
            assert (mine.client, mine.images) == (theirs.client, theirs.images)
            pairs.append((mine.state, theirs.state))
        assert all(mine.keys() == theirs.keys() for mine, theirs in pairs)
        assert all(torch.equal(value, theirs[key]) for mine, theirs in pairs for key, value in mine.items())


def broken(folder, tensors=None, **metadata):
    folder.mkdir(exist_ok=True)
    save_file(
        {"before/a": torch.zeros(2)} if tensors is None else tensors, folder / "round-000000.safetensors", metadata
    )


def test_a_log_that_is_none_is_refused_by_name(tmp_path):
    with pytest.raises(log.LogError, match="found no folder, expected the log of a federation"):
        log.read(tmp_path / "nowhere")
    with pytest.raises(log.LogError, match=r"found no file \*.safetensors"):
        log.read(tmp_path)
    folder = tmp_path / "log"
    broken(folder)
    with pytest.raises(log.LogError, match=r"round-000000.safetensors: found no round of a federation \(KeyError"):
        log.read(folder)
    broken(
        folder, {"before/a": torch.zeros(2), "message/1/a": torch.zeros(2)}, round='{"number": 0, "images": {"0": 5}}'
    )
    with pytest.raises(log.LogError, match="no round of a federation"):
        log.read(folder)
    broken(folder, round="[0]")
    with pytest.raises(log.LogError, match="no round of a federation"):
        log.read(folder)
    broken(folder, round='{"number": 0, "images": {"0": 0}}')
    with pytest.raises(log.LogError, match=r"found images \{0: 0\}"):
        log.read(folder)
    (folder / "round-000000.safetensors").write_bytes(b"PK\x03\x04 a pickle, it may be")
    with pytest.raises(log.LogError, match="no round of a federation"):
        log.read(folder)


def test_what_is_reconstructed_from_a_log_is_what_the_trial_hands_in(asked, lived, place):
    """The log knows no label; the sign of the last layer's bias tells it, of one image."""
    log.write(place, lived)
    lines, picture, why = logged.attacked("ig", asked, place, None, "cpu", silent)
    lines = lines.set_index(["client", "variant"])
    assert not why and picture.is_file() and set(lines["status"]) == {"ok"}
    settings = config.params("ig").variants_on(asked)
    path = config.root() / "baselines" / "ig" / "attack.py"
    for variant in ("cosine", "as_gradient"):
        trial = attempt(Job(asked, "ig", variant, path, settings[variant], 1, 0, execution=LOOP))
        assert lines.loc[(0, variant), "loss"] == pytest.approx(trial.line["loss"], rel=1e-5)
        assert lines.loc[(0, variant), "evaluations"] == trial.line["evaluations"]
        assert lines.loc[(0, variant), "labels"] == str(int(secret(asked, 0).labels[0]))


def test_a_call_that_was_interrupted_goes_on(asked, lived, place, monkeypatch):
    log.write(place, lived)
    real, ran = logged.attempted, []

    def once(*words):
        if ran:
            raise KeyboardInterrupt
        ran.append(1)
        return real(*words)

    monkeypatch.setattr(logged, "attempted", once)
    with pytest.raises(KeyboardInterrupt):
        logged.attacked("dlg", asked, place, range(2), "cpu", silent)
    monkeypatch.setattr(logged, "attempted", lambda *words: ran.append(1) or real(*words))
    logged.attacked("dlg", asked, place, range(2), "cpu", silent)
    before = len(ran)
    lines, _, _ = logged.attacked("dlg", asked, place, range(2), "cpu", silent)
    assert before == len(ran) == len(lines)
    with pytest.raises(ConfigError, match="holds 2 messages, the first one is 0; none of them was asked for"):
        logged.attacked("dlg", asked, place, range(5, 9), "cpu", silent)


def test_a_bad_message_is_a_failed_line_and_no_more(asked, lived, place):
    state = {key: value.clone() for key, value in lived.messages[0].state.items()}
    next(iter(state.values())).view(-1)[0] = torch.nan
    messages = (Message(0, state, 1), lived.messages[1])
    log.write(place, Round(0, lived.before, messages, lived.after, messages))
    lines, _, why = logged.attacked("ig", asked, place, None, "cpu", silent)
    assert not why and list(lines[lines["client"] == 0]["status"].unique()) == ["failed"]
    assert list(lines[lines["client"] == 1]["status"].unique()) == ["ok"]
    log.write(place, Round(0, {"other": torch.zeros(1)}, messages, lived.after, messages))
    _, _, why = logged.attacked("ig", asked, place, None, "cpu", silent)
    assert all("round 0: the global model lacks" in sentence for sentence in why) and why


def test_what_no_log_can_tell_is_refused(lived, place):
    log.write(place, lived)
    for name in ("imprint_cifar10_update", "softmax_att_released", "lenet_cifar10_sequence"):
        with pytest.raises(ConfigError, match="a log is read for honest attackers that see 'gradient' or 'update'"):
            logged.seen_of(config.benchmark(name, "quick"), log.read(place)[0], lived.messages[0], torch.device("cpu"))


def test_the_console_shows_messages(lived, place):
    log.write(place, lived)
    words = ["run", "ig", BENCHMARK, "--messages", str(place), "--trials", "1"]
    got = CliRunner().invoke(app, words)
    assert got.exit_code == 0, got.output
    assert "messages of" in got.output and "half_rate" in got.output and "grid.png" in got.output
    got = CliRunner().invoke(app, [*words[:4], str(place / "nowhere")])
    assert got.exit_code == 2 and "found no folder, expected the log of a federation" in got.output
    got = CliRunner().invoke(app, [*words, "--victims", "development"])
    assert got.exit_code == 2 and "whose clients are the victims" in got.output
