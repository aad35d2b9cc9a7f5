"""The federation of `rounds` as a Flower app: its clients as one ClientApp, the curious server as a strategy.

Clients, rules and draws are those of the loop in one process, and the global model that comes out is the same: replies
come in any order and are sorted by client, and what a client draws depends on its place and the round alone. Flower
names nodes anew in every run, so a client is its partition: where it runs is another matter.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from leakboard.federation import rounds
from leakboard.federation.clients import Remembering
from leakboard.federation.rounds import Client, Draws, MessageError, Round, Rule, State, fitting, state_of

ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"  # the records of a message, as Flower's strategies name them
NUMBER, WEIGHT, CLIENT = "server-round", "num-examples", "client"
MINUTE = 60.0


def client_app(
    client_of: Callable[[int], Client | Remembering], model_of: Callable[[], nn.Module], draws: Draws
) -> ClientApp:
    """What every node of the federation runs. client_of: the client of a partition; any callable of `clients` will do.

    model_of: the architecture, whose weights are those of the global model. The app is sent to other processes.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        place, number = int(context.node_config["partition-id"]), whole(message.content.config_records[CONFIG][NUMBER])
        client, received = client_of(place), message.content.array_records[ARRAYS]
        if isinstance(client, Remembering):
            context.state[f"{ARRAYS}-{number:06}"] = received
            kept = sorted(name for name in context.state.array_records if name.startswith(ARRAYS))
            states = [context.state.array_records[name].to_torch_state_dict() for name in kept]
            state, images = client.answer(states, number, lambda other: draws(other, place))
        else:
            model = model_of()
            model.load_state_dict(received.to_torch_state_dict())
            state, images = client(model, number, draws(number, place))
        metrics = MetricRecord({WEIGHT: images, CLIENT: place})
        return Message(RecordDict({ARRAYS: ArrayRecord(state), METRICS: metrics}), reply_to=message)

    return app


def whole(value: object) -> int:
    """A number of a record; MessageError for what is none."""
    if not isinstance(value, int):
        raise MessageError(f"found {value!r} in the record of a message, expected a whole number")
    return value


class CuriousServer(FedAvg):
    """Flower's strategy that keeps every round as an observer sees it. All clients take part in every round.

    before: the global model. seen: is told of each round, once its messages have been checked and averaged by `rule`.
    MessageError for a client that failed, and for a message that does not fit or is not finite.
    """

    def __init__(self, clients: int, before: State, rule: Rule, seen: Callable[[Round], None]) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients, weighted_by_key=WEIGHT
        )
        self.before, self.rule, self.seen = before, rule, seen

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The global model and the number of the round, which counts from 0 here as everywhere in Leakboard."""
        sent = super().configure_train(server_round, arrays, config, grid)
        config[NUMBER] = server_round - 1
        return sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next global model, of the messages in the order of the clients."""
        number, replies = server_round - 1, list(replies)
        for reply in replies:
            if reply.has_error():
                raise MessageError(f"round {number}: a client failed: {reply.error.reason or reply.error.code}")
        messages = tuple(sorted((self._read(number, reply) for reply in replies), key=lambda one: one.client))
        if len(messages) < self.min_train_nodes:
            raise MessageError(f"round {number}: {len(messages)} messages came in, expected {self.min_train_nodes}")
        after = fitting(
            self.rule(self.before, messages), self.before, f"round {number}: what the rule made of the messages"
        )
        self.seen(Round(number, self.before, messages, after, messages))
        self.before = after
        return ArrayRecord(after), MetricRecord({WEIGHT: sum(message.images for message in messages)})

    def _read(self, number: int, reply: Message) -> rounds.Message:
        metrics = reply.content.metric_records[METRICS]
        client, images = whole(metrics[CLIENT]), whole(metrics[WEIGHT])
        who = f"round {number}: the message of client {client}"
        if images < 1:
            raise MessageError(f"{who} stands for {images} images, expected a whole number from 1 on")
        state = reply.content.array_records[ARRAYS].to_torch_state_dict()
        return rounds.Message(client, fitting(state, self.before, who), images)


def simulated(
    model: nn.Module,
    clients: Sequence[Client | Remembering],
    rule: Rule,
    rng: Draws,
    numbers: int,
    seconds: float = 10 * MINUTE,
) -> list[Round]:
    """The first `numbers` rounds, each client in a process of Flower's simulation engine. seconds: for one round.

    MessageError as `rounds.rounds`, and for a client that failed. Nothing is sent to anybody outside.
    """
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found: list[Round] = []
    failed: list[BaseException] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = CuriousServer(len(clients), state_of(model), rule, found.append)
        try:
            strategy.start(grid, ArrayRecord(state_of(model)), numbers, timeout=seconds)
        except MessageError as error:  # from another thread, of which Flower tells no more than that it ended
            failed.append(error)

    run_simulation(server, client_app(clients.__getitem__, lambda: model, rng), len(clients))
    if failed:
        raise failed[0]
    if len(found) < numbers:
        raise MessageError(f"{len(found)} of {numbers} rounds came to an end; Flower's log says why")
    return found
