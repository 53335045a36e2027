"""The algorithms by which decisions learn: one file each, and their table.

Another one is a file with an `ALGORITHM` and a line here.
"""

from multipath.routing_networks.algorithms import (
    aac,
    actor_critic,
    advantage,
    bootstrap_aac,
    bootstrap_advantage,
    egreedy_aac,
    egreedy_reinforce,
    gumbel,
    qlearning,
    reinforce,
    reinforce_bl1,
    reinforce_bl2,
    relax,
    sarsa,
    surprise,
    wpl,
)
from multipath.routing_networks.algorithms.base import Algorithm, Choice, Experience

__all__ = ["ALGORITHMS", "Algorithm", "Choice", "Experience"]

ALGORITHMS: dict[str, Algorithm] = {
    "reinforce": reinforce.ALGORITHM,
    "reinforce_bl1": reinforce_bl1.ALGORITHM,
    "reinforce_bl2": reinforce_bl2.ALGORITHM,
    "egreedy_reinforce": egreedy_reinforce.ALGORITHM,
    "qlearning": qlearning.ALGORITHM,
    "sarsa": sarsa.ALGORITHM,
    "actor_critic": actor_critic.ALGORITHM,
    "aac": aac.ALGORITHM,
    "bootstrap_aac": bootstrap_aac.ALGORITHM,
    "egreedy_aac": egreedy_aac.ALGORITHM,
    "advantage": advantage.ALGORITHM,
    "bootstrap_advantage": bootstrap_advantage.ALGORITHM,
    "surprise": surprise.ALGORITHM,
    "wpl": wpl.ALGORITHM,
    "gumbel": gumbel.ALGORITHM,
    "relax": relax.ALGORITHM,
}
