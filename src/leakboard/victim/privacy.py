"""What DP-SGD promises: epsilon at a stated delta, by opacus' accountant."""

from __future__ import annotations

import math
import warnings

from leakboard.config import ConfigError

DELTA = 1e-5  # as Abadi et al. 2016, section 5


def epsilon(multiplier: float, rate: float, steps: int, delta: float = DELTA) -> float:
    """Of so many steps, each of which takes an example with probability `rate`, with noise of `multiplier` times the
    clipping norm on their sum: by Renyi differential privacy (Mironov 2017), inf without noise.

    differs: our batches are shuffled slices of the images; the accountant is of batches drawn anew for every step.
    """
    try:
        from opacus.accountants import RDPAccountant
    except ImportError:
        raise ConfigError("epsilon is opacus' to tell, which is not installed: pip install 'leakboard[dp]'") from None
    if not multiplier:
        return math.inf
    accountant = RDPAccountant()
    accountant.history = [(multiplier, rate, steps)]
    with warnings.catch_warnings():  # that another order of the divergence might give a smaller one
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta))
