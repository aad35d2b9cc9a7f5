"""Labels read off the last linear layer of a gradient or a model update.

For cross-entropy, averaged over K images, the gradients of that layer's bias and weight are

    db_c = mean_n (p_nc - [y_n = c]) = p_c - n_c / K          dW_c = mean_n (p_nc - [y_n = c]) a_n

with p the softmax output and a the layer's input. How often class c occurs, n_c, follows from db_c if the mean output
p_c is known, and from the sum of the row dW_c if the mean summed input O is known too; other images give both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from leakboard.threat import Gradient, ModelUpdate

Observed = Gradient | ModelUpdate


class LastLayer(NamedTuple):
    """The last linear layer and what was observed of it: weight (classes, features), bias (classes,) if it has one."""

    layer: nn.Linear
    weight: Tensor
    bias: Tensor | None


def last_layer(seen: Observed) -> LastLayer:
    """ValueError if the model has no linear layer, or if nothing is known of the steps behind an update."""
    if isinstance(seen, ModelUpdate) and seen.local is None:
        raise ValueError("the benchmark does not tell the local training, without which an update has no scale")
    linears = [module for module in seen.model.modules() if isinstance(module, nn.Linear)]
    if not linears:
        raise ValueError("the model has no linear layer to read labels from")
    observed = {id(p): g for p, g in zip(seen.model.parameters(), seen.gradient, strict=True)}
    layer = linears[-1]
    return LastLayer(layer, observed[id(layer.weight)], None if layer.bias is None else observed[id(layer.bias)])


def idlg_label(seen: Observed) -> Tensor:
    """The label (1,) of a single image: the row with the smallest sum (Zhao et al. 2020, equation 5).

    Exact for batch 1, cross-entropy with a hard label, and non-negative features before the last layer: the row of
    class c is (p_c - [c = y]) times the features.
    """
    return last_layer(seen).weight.sum(1).argmin().view(1)


def smallest_rows(seen: Observed) -> Tensor:
    """The K classes whose rows have the smallest entries (Yin et al. 2021, equation 7): labels that occur once only."""
    count = min(seen.shape[0], seen.classes)
    return last_layer(seen).weight.amin(1).topk(count, largest=False).indices.sort().values


def row_sum_labels(seen: Observed, dummies: Tensor, along: object = False) -> Tensor:
    """n_c = K p_c - K sum(dW_c) / O, with p and O of dummy images before the local training, or `along` it.

    Geng et al. 2021 take the model before; Dimitrov et al. 2022 (section 4) both ends, interpolated in between.
    along: any value that is true, as dlf, which waits with engine 1, still names the two ends.
    """
    rows = last_layer(seen).weight.sum(1)
    expected = [shares - rows / total for shares, total in _statistics_of(seen, dummies, bool(along))]
    return occurring(torch.stack(expected).mean(0) * seen.shape[0], seen.shape[0])


def bias_labels(seen: Observed, dummies: Tensor, along: bool = False) -> Tensor:
    """n_c = K p_c - K db_c: needs no inputs of the layer. ValueError if it has no bias."""
    bias = last_layer(seen).bias
    if bias is None:
        raise ValueError("the last linear layer has no bias")
    expected = [shares - bias for shares, _ in _statistics_of(seen, dummies, along)]
    return occurring(torch.stack(expected).mean(0) * seen.shape[0], seen.shape[0])


def llg_labels(seen: Observed, dummies: Tensor | None = None) -> Tensor:
    """LLG (Wainakh et al. 2022, algorithm 1): every negative row is a label; then the lowest row, again and again.

    Each label found lifts its row by the impact of one. With dummies impact and offset are measured on them (LLG*);
    without, the impact is the negative rows' sum over K, and there is no offset.
    """
    count, rows = seen.shape[0], last_layer(seen).weight.sum(1).clone()
    negative = rows < 0
    impact, offset = rows[negative].sum() / count, torch.zeros_like(rows)
    if dummies is not None:
        impact, offset = _impact_and_offset(seen, dummies)
    impact = impact * (1 + 1 / seen.classes)
    found = rows.argsort()[: min(count, int(negative.sum()))].tolist()
    rows[found] -= impact
    rows -= offset
    while len(found) < count:
        found.append(int(rows.argmin()))
        rows[found[-1]] -= impact
    return torch.tensor(sorted(found), device=rows.device)


def occurring(expected: Tensor, total: int) -> Tensor:
    """Labels (total,), sorted, of classes expected `expected` (classes,) times: one by one to whom most are missing."""
    missing, found = expected.clone(), []
    for _ in range(total):
        found.append(int(missing.argmax()))
        missing[found[-1]] -= 1
    return torch.tensor(sorted(found), device=expected.device)


def _statistics_of(seen: Observed, dummies: Tensor, along: bool) -> list[tuple[Tensor, Tensor]]:
    """(p (classes,), O) of the dummies: before the local training, or at each of its steps, interpolated."""
    state = dict(seen.model.named_parameters())
    before = _statistics(seen, state, dummies)
    if not along or not isinstance(seen, ModelUpdate):
        return [before]
    moved = zip(state.items(), seen.update, strict=True)
    after = _statistics(seen, {name: value + change for (name, value), change in moved}, dummies)
    steps = 1 if seen.local is None else seen.local.steps
    ways = [step / steps for step in range(steps)]
    return [(torch.lerp(before[0], after[0], way), torch.lerp(before[1], after[1], way)) for way in ways]


@torch.no_grad()
def _statistics(seen: Observed, state: Mapping[str, Tensor], dummies: Tensor) -> tuple[Tensor, Tensor]:
    """Mean softmax output (classes,) and mean summed input of the last linear layer, of the model in this state."""
    inputs: list[Tensor] = []
    handle = last_layer(seen).layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        buffers = {name: buffer.clone() for name, buffer in seen.model.named_buffers()}
        logits = functional_call(seen.model, {**state, **buffers}, (dummies,))
    finally:
        handle.remove()
    return logits.softmax(1).mean(0), inputs[0].sum(1).mean()


def _impact_and_offset(seen: Observed, dummies: Tensor) -> tuple[Tensor, Tensor]:
    """What a label does to its own row's sum, and what the others do to a row, from dummies of one class at a time."""
    weight, rows = last_layer(seen).layer.weight.requires_grad_(), []
    logits = seen.model(dummies)
    for label in range(seen.classes):
        labels = torch.full((len(dummies),), label, device=dummies.device)
        (gradient,) = torch.autograd.grad(seen.loss(logits, labels), [weight], retain_graph=True)
        rows.append(gradient.sum(1))
    table = torch.stack(rows)  # (class of the dummies, row)
    own = table.diagonal()
    return own.mean() / seen.shape[0], (table.sum(0) - own) / (seen.classes - 1)
