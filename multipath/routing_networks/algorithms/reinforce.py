"""REINFORCE: the policy gradient with returns.

Reference: Williams (1992).
"""

from jaxtyping import Array, Float

from multipath.routing_networks.algorithms import acting, base, formulas


def loss(experience: base.Experience) -> Float[Array, "depth batch"]:
    """Return -ln π(a) G."""
    return formulas.policy_gradient(experience, experience.returns)


ALGORITHM = base.Algorithm(base.stores(), acting.act_by_policy(tempered=True), loss)
