"""Data sets with official positions, their origins and checksums, and partitions among clients."""

from leakboard.data.images import Dataset
from leakboard.data.loading import dataset
from leakboard.data.places import DataError
from leakboard.data.slices import Slice, refuse_common_classes, refuse_overlap, select

__all__ = ["DataError", "Dataset", "Slice", "dataset", "refuse_common_classes", "refuse_overlap", "select"]
