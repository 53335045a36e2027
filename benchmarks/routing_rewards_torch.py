"""Rewards of actions in the published program, sample by sample.

See `routing_rules_torch`.
"""

from collections import deque

import numpy as np


class Zero:
    """No reward of actions, of which there are so many."""

    def __init__(self, actions: int):
        self.actions = actions

    def register(self, action: int) -> None: ...

    def query(self, action: int) -> float:
        return 0.0


class Manual(Zero):
    """0.1 for the first action, 0.2 for the second, and so on."""

    def query(self, action: int) -> float:
        return 0.1 * (action + 1)


class Collaboration(Zero):
    """The share of an action among the last ones, times the ratio, twice."""

    ratio, window = 0.3, 256

    def __init__(self, actions: int):
        super().__init__(actions)
        self.history = deque(maxlen=self.window)

    def register(self, action: int) -> None:
        self.history.append(action)

    def query(self, action: int) -> float:
        share = self.ratio * self.history.count(action) / len(self.history)
        return self.ratio * share


class RunningAverage(Zero):
    """A running frequency of actions, times the ratio."""

    ratio, window = 0.3, 32

    def __init__(self, actions: int):
        super().__init__(actions)
        self.share = np.zeros(actions)

    def register(self, action: int) -> None:
        keep = 10 ** (-1 / self.window)
        new = keep * self.share
        new[action] += 1 - keep
        self.share = new / new.sum()

    def query(self, action: int) -> float:
        return self.ratio * float(self.share[action])
