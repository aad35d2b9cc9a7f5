"""Data sets with official positions, their origins and checksums, and partitions among clients."""

from leakboard.data.images import Dataset
from leakboard.data.loading import dataset
from leakboard.data.places import DataError

__all__ = ["DataError", "Dataset", "dataset"]
