"""A federation on machines of its own, whose server writes down what it sees. Network and training are a benchmark's.

Client k holds what trial k of the benchmark hides; who has data of their own returns `honest(theirs, ...)` instead.
`leakboard run ATTACK cnn3_cifar10_update --messages LOG` attacks what is written down.
"""

from __future__ import annotations

import functools
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from torch import nn

from leakboard.config import benchmark
from leakboard.federation import log
from leakboard.federation.clients import honest
from leakboard.federation.flower import CuriousServer, client_app
from leakboard.federation.rounds import Client, derived, state_of
from leakboard.federation.rules import average
from leakboard.victim.leak import federation_of
from leakboard.victim.network import network
from leakboard.victim.secrets import secret

ASKED = benchmark("cnn3_cifar10_update", "quick")


def client_of(place: int) -> Client:
    return honest(secret(ASKED, place), federation_of(ASKED), nn.CrossEntropyLoss())


client = client_app(client_of, lambda: network(ASKED, 0), derived("observed"))
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """rounds, clients and log: of `pyproject.toml`, or of `flwr run --run-config`."""
    said, before = context.run_config, state_of(network(ASKED, 0))
    seen = functools.partial(log.write, Path(str(said["log"])))
    curious = CuriousServer(int(said["clients"]), before, average, seen)
    curious.start(grid, ArrayRecord(before), int(said["rounds"]))
