"""Weight masks that find the modules of any trained network.

`find_masks` takes a network and data of its sub-tasks and tells which of the weights
each sub-task uses. The experiments of Csordás et al. (2021) are built on the same
parts.
"""

from modmask.config import MaskConfig
from modmask.find import Found, Subtask, find_masks

__all__ = ["Found", "MaskConfig", "Subtask", "find_masks"]
