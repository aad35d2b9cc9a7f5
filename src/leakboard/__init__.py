"""Leakboard: the reproducible benchmark suite for data reconstruction in federated learning."""

__version__ = "0.1.0"

# Raised by one whenever a change of the machinery moves a number. DVC stages depend on it, never on the source tree.
ENGINE = 1
