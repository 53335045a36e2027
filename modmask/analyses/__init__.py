"""What is done with trained networks, by task.

An analysis is a function `(problem, configs, networks, place, offset) -> outcomes`, one
`Outcome` per network; `transfer.run` trains its networks itself.
"""

from collections.abc import Callable

from modmask.analyses import class_removal, cosine, stability, stages, transfer
from modmask.analyses.outcome import Outcome

Analysis = Callable[..., list[Outcome]]

ANALYSES: dict[str, Analysis] = {
    "tuple": stages.run,
    "tuple_ff": stages.run,
    "tuple_ff_copyweight": stages.run,
    "addmul": stages.run,
    "addmul_ff": stages.run,
    "scan": stages.run,
    "trafo_scan": stages.run,
    "deepmind_math": stages.run,
    "cifar10_class_removal": class_removal.run,
    "cifar10_resnet_class_removal": class_removal.run,
    "cifar10_mask_stability": stability.run,
    "cifar10_grad_cosine": cosine.run,
}

__all__ = ["ANALYSES", "Analysis", "Outcome", "transfer"]
