"""Many problems as one computation: P networks of one architecture, each with its own weights, images and observation.

`torch.func.vmap` carries the forward pass over the problems; one backward pass then serves them all. The same function,
traced once per shape, is what the compiler and the CUDA graph run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as trees

from leakboard.attack.costs import Cost
from leakboard.attack.step import Factors, Given, Step, Value, bare, bfloat16
from leakboard.threat import Gradient, ModelUpdate

SIZES = (64, 16, 4, 1)  # problems that are compiled for
Compiled = Callable[..., list[Tensor]]
COMPILED: dict[tuple, Compiled] = {}  # of this process: compiling takes longer than many a search
COLUMNS = 2**15  # elements of a problem's image columns up to which a product beats a convolution on a CPU


class Products(TorchFunctionMode):
    """Small convolutions as a product of weights and image columns: per-problem weights make a convolution grouped,
    and the derivatives of grouped convolutions cost more than those of a product.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.conv2d:
            return _convolution(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


PLAIN = ((), ((1, 1),), ((1, 1), 1))  # no dilation, one group


def _convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, *rest: Any, **named: Any
) -> Tensor:
    """conv2d on (B, C, H, W); rest: dilation and groups."""
    plain = isinstance(padding, tuple) and isinstance(stride, tuple) and rest in PLAIN and not named
    if not plain:
        return torch.conv2d(x, weight, bias, stride, padding, *rest, **named)
    sides = [
        (size + 2 * pad - kernel) // step + 1
        for size, pad, kernel, step in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
    ]
    if len(x) * weight[0].numel() * sides[0] * sides[1] > COLUMNS:
        return torch.conv2d(x, weight, bias, stride, padding, *rest)
    columns = nn.functional.unfold(x, weight.shape[2:], padding=padding, stride=stride)
    columns = columns.transpose(0, 1).reshape(weight[0].numel(), -1)  # (C k k, B H W)
    out = weight.flatten(1) @ columns
    if bias is not None:
        out = out + bias[:, None]
    return out.view(len(weight), len(x), *sides).transpose(0, 1)


class Stack:
    """Callable: images (Q, B, C, H, W), labels, soft, which -> `Value`, each part with Q in front.

    which (Q,): the problems to evaluate; None: all. The execution `stacked` runs operation by operation, `compiled`
    through torch.compile, `cuda_graph` replays CUDA graphs of that. Every evaluation is counted: `Seen.spend`.
    """

    def __init__(
        self, problems: Sequence[Gradient | ModelUpdate], cost: Cost, dtype: torch.dtype, halved: bool
    ) -> None:
        first = problems[0]
        self.problems, self.cost, self.halved, self.execution = problems, cost, halved, first.execution
        self.skeleton = bare(first.model).to(dtype)
        self.factors = Factors(self.skeleton, first.shape, cost)
        self.names = [name for name, _ in (*self.skeleton.named_parameters(), *self.skeleton.named_buffers())]
        self.everything = [
            _stacked((one.model.parameters() for one in problems), dtype),
            _stacked((one.model.buffers() for one in problems), dtype),
            _stacked((one.gradient for one in problems), dtype),
        ]
        self.which: Tensor | None = None
        self.chosen = self.everything
        self.compiled: dict[tuple[int, bool], Compiled] = {}

    def __call__(self, images: Tensor, labels: Tensor, soft: bool, which: Tensor | None) -> Value:
        for index in range(len(self.problems)) if which is None else which.tolist():
            self.problems[index].spend()
        self._choose(which, len(images))
        if self.execution == "stacked":
            return self._evaluate([*self.chosen, images, labels], soft)
        return self._run_compiled(images, labels, soft)

    def _choose(self, which: Tensor | None, count: int) -> None:
        """Take the weights and observations of these problems; copied only when the choice changes."""
        if which is None or count == len(self.problems):
            self.which, self.chosen = None, self.everything
        elif which is not self.which and (self.which is None or not torch.equal(which, self.which)):
            self.which, self.chosen = which, trees.tree_map(lambda tensor: tensor[which], self.everything)

    def _evaluate(self, given: list[Any], soft: bool) -> Value:
        """given: parameters, buffers, observed (lists of one tensor per layer), images, labels; problems in front."""
        one = len(given[-1]) == 1  # vmap over a single problem costs and gains nothing
        if one:
            given = trees.tree_map(lambda tensor: tensor[0], given)
        parameters, buffers, observed, images, labels = given
        free = [parameter.detach().requires_grad_() for parameter in parameters]
        step = Step(self._forward, self.factors, self.cost, _itself if one else vmap)
        value = step.evaluate(Given(free, list(buffers), list(observed)), images, labels, soft)
        return trees.tree_map_only(Tensor, lambda tensor: tensor[None], value) if one else value

    def _forward(
        self, parameters: list[Tensor], buffers: list[Tensor], probes: list[Tensor], images: Tensor, labels: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        state = dict(zip(self.names, [*parameters, *buffers], strict=True))
        with self.factors.recording(probes) as inputs, Products(), bfloat16(images, self.halved):
            logits = functional_call(self.skeleton, state, (images,))
            return self.problems[0].loss(logits, labels), inputs

    def _run_compiled(self, images: Tensor, labels: Tensor, soft: bool) -> Value:
        """In chunks of the sizes that are compiled for: as problems end, no new size is compiled and none is filled."""
        ends, start = [], 0
        while start < len(images):
            size = next(size for size in SIZES if size <= len(images) - start)
            rows, start = slice(start, start + size), start + size
            given = trees.tree_map(lambda tensor, rows=rows: tensor[rows], [*self.chosen, images, labels])
            leaves, spec = trees.tree_flatten(given)
            if (size, soft) not in self.compiled:
                self.compiled[size, soft] = self._compile(leaves, spec, soft)
            ends.append(self.compiled[size, soft](*leaves))
        value = [torch.cat(parts) for parts in zip(*ends, strict=True)]
        return value[0], value[1], value[2] if soft else None

    def _compile(self, leaves: list[Tensor], spec: Any, soft: bool) -> Compiled:
        """Taken from what this process has compiled, if that computes on these problems what running plainly does."""

        def plain(*leaves: Tensor) -> list[Tensor]:
            value = self._evaluate(trees.tree_unflatten(list(leaves), spec), soft)
            return [part for part in value if part is not None]

        modules = ((name, type(module), module.extra_repr()) for name, module in self.skeleton.named_modules())
        shapes = ((tensor.shape, tensor.dtype, tensor.device) for tensor in leaves)
        loss = repr(self.problems[0].loss)
        key = (*modules, *shapes, self.cost, loss, soft, self.halved, self.execution)
        if key in COMPILED:
            ends = zip(COMPILED[key](*leaves), plain(*leaves), strict=True)
            if all(float((mine - wanted).norm()) <= 1e-3 * float(wanted.norm()) for mine, wanted in ends):
                return COMPILED[key]
        COMPILED[key] = compile_for(leaves, plain, self.execution == "cuda_graph")
        return COMPILED[key]


def _itself(function: Callable) -> Callable:
    return function


def _stacked(rows: Iterable[Iterable[Tensor]], dtype: torch.dtype) -> list[Tensor]:
    """One tensor per layer, problems in front; whole numbers stay whole."""
    layers = zip(*rows, strict=True)
    stacks = [torch.stack([tensor.detach() for tensor in layer]) for layer in layers]
    return [stack.to(dtype) if stack.is_floating_point() else stack for stack in stacks]


def compile_for(example: list[Tensor], function: Callable[..., list[Tensor]], cuda_graph: bool) -> Compiled:
    """The function traced on `example`, both backward passes included, and compiled for its shapes."""
    from torch._inductor import config
    from torch._inductor.decomposition import decompositions
    from torch._inductor.lowering import make_fallback

    config.compile_threads = 1  # every trial process compiles for itself and keeps its one thread
    # Taken apart, col2im becomes a scatter, which deterministic algorithms sort first; its own kernel is deterministic.
    col2im = torch.ops.aten.col2im.default
    if decompositions.pop(col2im, None) is not None:
        make_fallback(col2im, warn=False)  # unannounced, the compiler refuses a fallback where CI is set
    graph = make_fx(function)(*example)
    if not cuda_graph:
        return torch.compile(graph, dynamic=False)
    run = torch.compile(graph, dynamic=False, mode="reduce-overhead")
    return lambda *given: [part.clone() for part in run(*given)]  # the next replay writes over its outputs
