"""A hash of content: 12 hex digits that change when, and only when, what is said changes."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """12 hex digits of the sha256 over the canonical JSON form of `value`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
