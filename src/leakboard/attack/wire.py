"""What crosses the border between a runner and the process of an attack: numbers and arrays, nothing that could run.

A message is a line of JSON and the bytes of its arrays behind it. Whoever reads it builds every tensor anew; types,
shapes and sizes are checked on the reading side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy
import torch
from torch import Tensor

TYPES = {
    str(dtype): dtype
    for dtype in (
        torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int32, torch.int64, torch.bool,
    )
}  # fmt: skip


class WireError(ValueError):
    """Bytes that are no message, or something that cannot be sent."""


def packed(header: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> bytes:
    """One message; WireError unless every array is a plain tensor of a known type. Tensors are copied to the CPU."""
    described, parts = [], []
    for name, tensor in arrays.items():
        if not isinstance(tensor, Tensor) or str(tensor.dtype) not in TYPES or tensor.layout != torch.strided:
            raise WireError(f"{name} is a {type(tensor).__name__}, expected a dense tensor of numbers")
        plain = tensor.detach().cpu().contiguous()
        described.append([name, str(plain.dtype), list(plain.shape)])
        parts.append(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    line = json.dumps({"header": dict(header), "arrays": described}, allow_nan=True).encode()
    return b"".join([len(line).to_bytes(8, "big"), line, *parts])


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(header, arrays) of one message; WireError when it is none. Nothing of it is executed or trusted."""
    try:
        size = int.from_bytes(content[:8], "big")
        whole = json.loads(content[8 : 8 + size])
        header, described, at = whole["header"], whole["arrays"], 8 + size
        if not isinstance(header, dict):
            raise WireError("the header is no mapping")
        arrays: dict[str, Tensor] = {}
        for name, kind, shape in described:
            arrays[str(name)], at = _array(content, at, TYPES[kind], shape)
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"not a message: {type(error).__name__}") from None
    if at != len(content):
        raise WireError(f"{len(content)} bytes, expected {at}")
    return header, arrays


def _array(content: bytes, at: int, dtype: torch.dtype, shape: Any) -> tuple[Tensor, int]:
    if not isinstance(shape, list) or not all(type(side) is int and 0 <= side < 2**40 for side in shape):
        raise WireError("an array's shape is no list of sizes")
    end = at + math.prod(shape) * dtype.itemsize
    if end > len(content):
        raise WireError("an array is longer than its message")
    array = torch.empty(shape, dtype=dtype, device="cpu")  # whatever an attack made the default
    if end > at:
        array.flatten().view(torch.uint8).numpy()[:] = numpy.frombuffer(content, numpy.uint8, end - at, at)
    return array, end


def number(value: Any) -> float | None:
    """A plain finite number, or None: what else an attack may have put there is not sent."""
    if isinstance(value, Tensor) and type(value) is Tensor and value.numel() == 1:
        value = value.detach().cpu().item()
    if type(value) in (int, float) and math.isfinite(value):
        return float(value)
    return None


def words(error: BaseException) -> str:
    """One line that says what went wrong, whatever the error's own words do."""
    kind = type(error).__name__
    try:
        said = str(error)
    except BaseException:
        said = "(its message cannot be printed)"
    return plain(f"{kind}: {said}")


def plain(text: Any) -> str:
    """The first line of a text, in characters that can be printed and stored, 500 at most."""
    line = next(iter(str(text).splitlines()), "")[:500].encode("utf-8", "replace").decode()
    return "".join(one if one.isprintable() else "?" for one in line)
