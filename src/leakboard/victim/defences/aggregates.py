"""Defences in what a server sees of the messages of a round."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from leakboard.federation.rounds import Message
from leakboard.federation.rules import average
from leakboard.victim.defences.points import acts_on


@acts_on("aggregate")
def secure_aggregation(messages: Sequence[Message], rng: torch.Generator) -> Sequence[Message]:
    """Only the weighted mean of all messages, as if one client (-1) had sent it (Bonawitz et al. 2017).

    Ideal: nobody drops out, and no message can be told from the sum. The cryptography is not simulated.
    """
    first, images = messages[0].state, sum(message.images for message in messages)
    return [Message(-1, average(first, messages), images)]
