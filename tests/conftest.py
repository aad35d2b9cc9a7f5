"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets (LEAKBOARD_DATA). Without it the test is skipped, but fails where CI promises it."""
    named = os.environ.get("LEAKBOARD_DATA", "")
    if named and Path(named).is_dir():
        return Path(named)
    reason = f"real data is not here: LEAKBOARD_DATA is {named!r}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def private_root(tmp_path, monkeypatch) -> Path:
    """An empty data root; checksum memory stays inside it."""
    from leakboard.data import places

    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("LEAKBOARD_DATA", str(root))
    monkeypatch.setattr(places, "_memory_file", lambda: tmp_path / "build" / "verified.json")
    return root
