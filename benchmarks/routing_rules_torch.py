"""Decisions of the routed example in PyTorch, sample by sample: all sixteen rules.

The formulas are the published ones, with what they got wrong (Rosenbaum et al. 2018;
Cases et al. 2019): `compat=True` of our decisions. See `routing_torch`.
"""

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.routing_rewards_torch import Zero

CHANNELS, TINY = 5, 1e-6
Given = dict[str, torch.Tensor]


class Meta:
    """What one sample has been through: its task, and what each decision noted."""

    def __init__(self, task: int | None = None):
        self.task = task
        self.steps: list[dict[str, Any]] = []

    def finished(self) -> dict[str, list]:
        """Return one list for each name, with None where a step lacks it."""
        names = {name for step in self.steps for name in step}
        return {name: [step.get(name) for step in self.steps] for name in names}


class Table(nn.Module):
    """Numbers of one agent, whatever the input."""

    def __init__(self, outputs: int):
        super().__init__()
        self.table = nn.Parameter(torch.full((outputs,), 1 / outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table.expand(len(x), -1)


def store(inputs: int, outputs: int, hidden: tuple[int, ...], tabular: bool):
    """Return a policy or value function of one agent."""
    if tabular:
        return Table(outputs)
    widths = (inputs, *hidden, outputs)
    layers: list[nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def pick(values: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return values.gather(1, actions[:, None])[:, 0]


def draw(log: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Categorical(logits=log.detach()).sample()


class Decision(nn.Module, abc.ABC):
    """Choose a module for every sample, by the agent that acts for it."""

    second = 0

    def __init__(
        self,
        inputs: int,
        actions: int,
        agents: int = 1,
        *,
        hidden: tuple[int, ...] = (),
        tabular: bool = True,
        detach: bool = True,
        rate: float = 0.1,
        reward: Callable[[int], Zero] = Zero,
        grouped: bool = False,
    ):
        super().__init__()
        extra = actions if isinstance(self, Relax) else 0
        # The second store has one output, or one for each action.
        outputs = actions if self.second < 0 else self.second
        self.actions, self.detach, self.rate = actions, detach, rate
        self.policy = nn.ModuleList(
            store(inputs, actions, hidden, tabular) for _ in range(agents)
        )
        self.value = nn.ModuleList(
            store(inputs + extra, outputs, hidden, tabular)
            for _ in range(agents if outputs else 0)
        )
        self.reward, self.grouped = reward(actions), grouped

    def forward(self, x, metas, agents, mask=None, given: Given | None = None):
        """Return the (scaled) batch and the actions; note a step in each meta."""
        owner = [0] * len(x) if agents is None else agents.tolist()
        active = [i for i in range(len(x)) if mask is None or mask[i]]
        outputs, notes = list(x.split(1)), {}
        actions = torch.zeros(len(x), dtype=torch.long)
        for agent, rows in self.groups(owner, active):
            own = torch.cat([outputs[i] for i in rows])
            known = {name: value[rows] for name, value in (given or {}).items()}
            scaled, chosen, greedy, states = self.act(own, agent, known)
            states = functional.pad(states, (0, CHANNELS - states.shape[-1]))
            # The published flag is set where the action is the greedy one.
            flags = (chosen == greedy).long()
            for j, i in enumerate(rows):
                outputs[i], actions[i] = scaled[j : j + 1], chosen[j]
                notes[i] = chosen[j], flags[j], states[j : j + 1]
        for i in active:
            names = ("actions", "exploratory", "states")
            step = dict(zip(names, notes[i], strict=True))
            metas[i].steps.append({**step, "loss": self.loss, "reward": self.reward})
            self.reward.register(int(actions[i]))
        return torch.cat(outputs), actions

    def groups(self, owner: list[int], active: list[int]):
        """Return agents with the samples that they act for together."""
        if not self.grouped:
            return [(owner[i], [i]) for i in active]
        present = sorted({owner[i] for i in active})
        return [(a, [i for i in active if owner[i] == a]) for a in present]

    @abc.abstractmethod
    def act(self, x, agent: int, given: Given):
        """Return batch, actions, greedy actions and statistics `[n, K, channels]`."""

    @abc.abstractmethod
    def loss(self, now, action, after, after_action, reward, returns, final, last):
        """Return the loss of each step, from statistics `[N, K, channels]`."""

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach() if self.detach else x

    def values(self, x: torch.Tensor, agent: int) -> list[torch.Tensor]:
        """Return the second store's channel, if there is one."""
        if not self.second:
            return []
        return [self.value[agent](self.seen(x)).expand(-1, self.actions)]


class Reinforce(Decision):
    """Sample the policy."""

    def log_policy(self, x, agent):
        return functional.log_softmax(self.policy[agent](self.seen(x)), 1)

    def act(self, x, agent, given):
        log = self.log_policy(x, agent)
        greedy = log.argmax(1)
        action = given.get("actions")
        if action is None:
            action = draw(log) if self.training else greedy
        states = torch.stack([log, *self.values(x, agent)], -1)
        return x, action, greedy, states

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        return -pick(now[..., 0], action) * returns


class Critic(Reinforce):
    """REINFORCE with an action value as baseline: of the action taken."""

    second = -1

    def advantage(self, now, action, returns):
        return returns - pick(now[..., 1], action)

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        best = after[..., 1].detach().max(1).values
        target = torch.where(last, final, best - reward)
        log = pick(now[..., 0], action)
        push = self.advantage(now, action, returns).detach()
        return -log * push + (pick(now[..., 1], action) - target) ** 2


class Baseline1(Critic):
    """The baseline is the value of action 0."""

    def advantage(self, now, action, returns):
        return returns - now[:, 0, 1]


class Baseline2(Critic):
    """As Baseline1, with returns over the probability of the action."""

    def advantage(self, now, action, returns):
        probability = pick(functional.softmax(now[..., 0], 1), action)
        return returns / (self.actions * probability) - now[:, 0, 1]


class Aac(Reinforce):
    """A state value as baseline; every step pays the critic's mean over the batch."""

    second = 1

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        advantage = returns - now[:, 0, 1]
        log = pick(now[..., 0], action)
        return -log * advantage.detach() + (advantage**2).mean()


class BootstrapAac(Aac):
    """The target is the next value, which gets gradient too."""

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        advantage = after[:, 0, 1] * (~last) + reward - now[:, 0, 1]
        log = pick(now[..., 0], action)
        return -log * advantage.detach() + (advantage**2).mean()


class GreedyReinforce(Reinforce):
    """Act greedily but for a coin, then sample the policy."""

    def act(self, x, agent, given):
        log = self.log_policy(x, agent)
        policy, greedy = log.exp(), log.argmax(1)
        action = given.get("actions")
        if action is None:
            coin = (torch.rand(len(x)) < self.rate) & self.training
            action = torch.where(coin, draw(log), greedy)
        behaviour = policy
        if self.training:
            top = log.gather(1, greedy[:, None])
            behaviour = policy / (1 - top) * self.rate / (self.actions - 1)
            likely = torch.full_like(top, 1 - self.rate)
            behaviour = behaviour.scatter(1, greedy[:, None], likely)
        channels = [log, policy, behaviour, *self.values(x, agent)]
        return x, action, greedy, torch.stack(channels, -1)

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        weight = pick(now[..., 1], action) / pick(now[..., 2], action)
        log = pick(now[..., 0], action)
        # A column times a row: each step pays for all steps.
        return (-log * (weight[:, None] * returns).detach()).sum(1)


class GreedyAac(GreedyReinforce):
    """The same, with a state value as baseline."""

    second = 1

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        weight = pick(now[..., 1], action) / pick(now[..., 2], action)
        log, advantage = pick(now[..., 0], action), returns - now[:, 0, 3]
        actor = -log * (weight[:, None] * advantage).detach()
        return (actor + (advantage**2).mean()).sum(1)


class QLearning(Decision):
    """Act on the largest value but for a coin, then on any."""

    def act(self, x, agent, given):
        values = self.policy[agent](self.seen(x))
        greedy = values.argmax(1)
        action = given.get("actions")
        if action is None:
            coin = (torch.rand(len(x)) < self.rate) & self.training
            uniform = torch.randint(self.actions, (len(x),))
            action = torch.where(coin, uniform, greedy)
        states = torch.stack([values, *self.values(x, agent)], -1)
        return x, action, greedy, states

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        best = after[..., 0].detach().max(1).values
        target = torch.where(last, final, best - reward)
        return (pick(now[..., 0], action) - target) ** 2


class Sarsa(QLearning):
    """The target is the present value of the next action."""

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        target = torch.where(last, final, pick(now[..., 0].detach(), after_action))
        return (pick(now[..., 0], action) - target) ** 2


class Advantage(QLearning):
    """Learn the return, and the advantage of actions over it."""

    second = 1

    def target(self, after, reward, returns, final, last):
        return returns

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        target = self.target(after[:, 0, 1].detach(), reward, returns, final, last)
        error = target - now[:, 0, 1]
        return error**2 + (pick(now[..., 0], action) - error.detach()) ** 2


class BootstrapAdvantage(Advantage):
    def target(self, after, reward, returns, final, last):
        return torch.where(last, final, after + reward)


class Surprise(Advantage):
    def target(self, after, reward, returns, final, last):
        return torch.where(last, final, after - reward)


class Wpl(Reinforce):
    """Weighted policy learner: parameters shifted and scaled to probabilities."""

    second = -1

    def log_policy(self, x, agent):
        values = self.policy[agent](self.seen(x))
        values = values - values.min(1, keepdim=True).values + TINY
        policy, tiny = values / values.sum(1, keepdim=True), torch.finfo(x.dtype).eps
        return policy.clamp(tiny, 1 - tiny).log()

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        log, value = pick(now[..., 0], action), pick(now[..., 1], action)
        error = (returns - value).detach()
        factor = torch.where(error < 0, 1 + error, 2 - error)
        return (log - (log * factor).detach()) ** 2 + (value - returns) ** 2


class Gumbel(Decision):
    """The largest noisy logit; a straight-through factor on the sample's features."""

    def act(self, x, agent, given):
        logits = self.policy[agent](self.seen(x))
        states, greedy = logits[..., None], logits.argmax(1)
        if not self.training:
            return x, greedy, greedy, states
        u = given["u"] if "u" in given else torch.rand_like(logits)
        noise = -torch.log(-torch.log(u + 1e-20) + 1e-20)
        soft = functional.softmax((logits + noise) / (0.1 + 9.9 * self.rate), 1)
        action = soft.argmax(1)
        likely = pick(soft, action)
        return x * (1 + likely - likely.detach())[:, None], action, greedy, states

    def loss(self, now, *_):
        return now.new_zeros(len(now))


class Relax(Decision):
    """RELAX with a learned control variate; the loss writes gradients itself."""

    second, temperature = 1, 0.5

    def act(self, x, agent, given):
        logits = self.policy[agent](self.seen(x))
        log, greedy = functional.log_softmax(logits, 1), logits.argmax(1)
        u = given["u"] if "u" in given else torch.rand_like(logits)
        v = given["v"] if "v" in given else torch.rand_like(logits)
        noise, again = (-torch.log(-torch.log(w + 1e-8) + 1e-8) for w in (u, v))
        free = log + noise
        action = free.argmax(1) if self.training else greedy
        chosen = functional.one_hot(action, self.actions).bool()
        tied = log - torch.log(-torch.log(v) + log.exp())
        tied = torch.where(chosen, log + again, tied)
        channels = [logits]
        for z in (free, tied):
            soft = functional.softmax(z / self.temperature, 1)
            value = self.value[agent](self.seen(torch.cat([x, soft], 1)))
            channels.append(value.expand(-1, self.actions))
        return x, action, greedy, torch.stack(channels, -1)

    def loss(self, now, action, after, after_action, reward, returns, final, last):
        zeros = now.new_zeros(len(now))
        if not self.training:
            return zeros
        theta, phi = list(self.policy.parameters()), list(self.value.parameters())
        logits, free, tied = now.unbind(-1)[:3]
        policy = functional.softmax(logits, 1)
        hot = functional.one_hot(action, self.actions).to(policy)
        push = -(returns[:, None] - tied) * (hot - policy)
        score = gradients(policy, theta, push, create_graph=True)
        control = gradients((free - tied).sum(), theta, create_graph=True)
        entropy = -(policy * policy.log()).sum()
        bonus = gradients(entropy, theta, retain_graph=True)
        estimate = [p - d for p, d in zip(score, control, strict=True)]
        variance = sum(((g**2).sum() for g in estimate), start=zeros.sum()) / 2
        leaks = gradients(variance, theta + phi, retain_graph=True)
        own = [g - 0.01 * e for g, e in zip(estimate, bonus, strict=True)]
        own += [torch.zeros_like(p) for p in phi]
        for parameter, a, b in zip(theta + phi, own, leaks, strict=True):
            slot = parameter.grad if parameter.grad is not None else 0
            parameter.grad = (slot + a + b).detach()
        return zeros


def gradients(outputs, parameters, cotangent=None, **options) -> list[torch.Tensor]:
    """Return gradients, zero where there is no path."""
    if not outputs.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(
        outputs, parameters, cotangent, allow_unused=True, **options
    )
    pairs = zip(found, parameters, strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]


ALGORITHMS: dict[str, type[Decision]] = {
    "reinforce": Reinforce,
    "reinforce_bl1": Baseline1,
    "reinforce_bl2": Baseline2,
    "egreedy_reinforce": GreedyReinforce,
    "qlearning": QLearning,
    "sarsa": Sarsa,
    "actor_critic": Critic,
    "aac": Aac,
    "bootstrap_aac": BootstrapAac,
    "egreedy_aac": GreedyAac,
    "advantage": Advantage,
    "bootstrap_advantage": BootstrapAdvantage,
    "surprise": Surprise,
    "wpl": Wpl,
    "gumbel": Gumbel,
    "relax": Relax,
}
