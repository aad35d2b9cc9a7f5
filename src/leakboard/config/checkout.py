"""Which checkout of the suite this is: found in one way, from the working folder upwards."""

from __future__ import annotations

from pathlib import Path

from leakboard.config.sections import ConfigError


def root() -> Path:
    """The suite: the nearest folder upwards that holds `benchmarks/` and `baselines/`. ConfigError without one."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the working folder is gone, expected one in a checkout of Leakboard") from None
    if (found := _above(here)) is None:
        raise ConfigError(f"{here} lies in no Leakboard checkout: no folder upwards holds benchmarks/ and baselines/")
    return found


def installed() -> Path | None:
    """The checkout that this very code lies in; None where it was installed without one."""
    return _above(Path(__file__).resolve().parent)


def suites() -> list[Path]:
    """The checkout around the working folder and the one that this code lies in, as far as there are such."""
    return list(dict.fromkeys(folder for folder in (_above(Path.cwd()), installed()) if folder is not None))


def _above(here: Path) -> Path | None:
    folders = (here, *here.parents)
    return next((one for one in folders if (one / "benchmarks").is_dir() and (one / "baselines").is_dir()), None)
