"""Data sets as arrays on the device, their augmentation and batching."""

from shared.data import augment
from shared.data.dataset import Counts, Dataset, Info, Split
from shared.data.sources import load

__all__ = ["Counts", "Dataset", "Info", "Split", "augment", "load"]
