"""A hash of content: 12 hex digits that change when, and only when, what is said changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from leakboard.config.own import fingerprint


def digest(value: Any) -> str:
    """12 hex digits of the sha256 over the canonical JSON form of `value`; a path counts by what lies there."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=_plain).encode()).hexdigest()[:12]


def _plain(value: Any) -> str:
    return fingerprint(value) if isinstance(value, Path) else str(value)
