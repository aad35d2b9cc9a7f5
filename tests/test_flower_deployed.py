"""The example as a deployed federation: a SuperLink and two SuperNodes on loopback, started and stopped here."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from leakboard import config
from leakboard.federation import log
from leakboard.federation.clients import honest
from leakboard.federation.rounds import Plan, derived, rounds
from leakboard.federation.rules import average
from leakboard.victim.network import network
from leakboard.victim.secrets import secret

pytest.importorskip("flwr", reason="leakboard[flower] is not installed")

BIN = Path(sys.executable).parent
SECONDS = 300  # for what takes twenty on an idle machine


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def started(env, place, *words):
    """A server in a session of its own, which ends with all that it has started."""
    with (place / f"{words[0]}-{words[-1]}.log").open("w") as told:
        process = subprocess.Popen(
            [BIN / words[0], *words[1:]], stdout=told, stderr=subprocess.STDOUT, env=env, cwd=config.root(),
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            for word in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, word)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


def listening(port):
    for _ in range(SECONDS * 4):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.25)
    raise AssertionError(f"nothing listens on {port}")


def test_the_example_runs_as_deployed_and_its_log_is_that_of_the_loop_in_one_process(tmp_path):
    link, nodes = free_port(), (free_port(), free_port())
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "loopback"\n[superlink.loopback]\naddress = "127.0.0.1:{link}"\ninsecure = true\n'
    )
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(started(env, tmp_path, "flower-superlink", "--insecure", "--disable-runtime-dependency-installation",
                      "--port", str(link)))  # fmt: skip
        listening(link)
        for place, port in enumerate(nodes):
            enter(started(env, tmp_path, "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{link}",
                          "--port", str(port), "--node-config", f"partition-id={place}"))  # fmt: skip
        said = f"log='{tmp_path / 'log'}' rounds=2"
        app = config.root() / "examples" / "flower"
        words = [BIN / "flwr", "run", app, "loopback", "--run-config", said, "--stream"]
        ran = subprocess.run(words, env=env, capture_output=True, text=True, timeout=SECONDS)
        assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    there = log.read(tmp_path / "log")
    asked = config.benchmark("cnn3_cifar10_update", "quick")
    clients = [honest(secret(asked, place), asked.federation, torch.nn.CrossEntropyLoss()) for place in (0, 1)]
    here = list(rounds(network(asked, 0), clients, average, derived("observed"), Plan(range(2))))
    assert [one.number for one in there] == [0, 1]
    for mine, theirs in zip(here, there, strict=True):
        assert all(torch.allclose(value, theirs.before[key], atol=1e-6) for key, value in mine.before.items())
        for one, other in zip(mine.messages, theirs.messages, strict=True):
            assert (one.client, one.images) == (other.client, other.images)
            assert all(torch.allclose(value, other.state[key], atol=1e-6) for key, value in one.state.items())
