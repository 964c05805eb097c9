"""Scores of a policy: undiscounted returns of whole episodes on seeds that training never sees. M episodes run side by side."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from mbkit.loops.online import finite_action
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.types import Actor, EnvSpec, Metrics

MAX_STEPS = 10_000  # of an evaluation episode, where the task has no time limit

if TYPE_CHECKING:  # options are checked before a simulator is imported
    from mbkit.envs import Environment


class Evaluation(NamedTuple):
    """Returns and lengths of M episodes, and their transitions, which no fit has used (for diagnostics of the model)."""

    returns: Tensor  # float64 [M]
    lengths: Tensor  # int64 [M]
    rows: list[Experience]  # one per time step, [M] rows each; those of finished episodes are to be masked by `alive`
    alive: list[Tensor]  # bool [M] per time step: whether the row belongs to the episode being scored
    cut: int = 0  # number of episodes that had not ended after the cap of steps
    cap: int = 0  # most steps of an episode

    @classmethod
    def join(cls, parts: "list[Evaluation]") -> "Evaluation":
        """Several evaluations as one; the rows of one follow the other's."""
        returns, lengths = torch.cat([p.returns for p in parts]), torch.cat([p.lengths for p in parts])
        rows, alive = [row for p in parts for row in p.rows], [mask for p in parts for mask in p.alive]
        return cls(returns, lengths, rows, alive, sum(p.cut for p in parts), max(p.cap for p in parts))

    def buffer(self, spec: EnvSpec) -> ReplayBuffer:
        """The episodes' transitions in a replay buffer, from which windows and batches can be drawn."""
        buffer = ReplayBuffer(max(int(self.lengths.sum()), len(self.returns)), spec)
        for rows, alive in zip(self.rows, self.alive, strict=True):
            buffer.extend(rows, alive)
        return buffer

    def note(self) -> str | None:
        """What the user should know of a score of episodes that were cut; None where all of them ended."""
        if not self.cut:
            return None
        which = f"{self.cut} of {len(self.returns)} evaluation episodes"
        return f"The score counts {self.cap} steps of {which}, which had not ended by then; eval.max_steps sets how many."

    def metrics(self) -> Metrics:
        """`eval/return` is the mean over episodes."""
        std = self.returns.std(correction=0)
        return {"eval/return": self.returns.mean(), "eval/return_std": std, "eval/length": self.lengths.double().mean()}


@torch.no_grad()
def evaluate_policy(env: "Environment", actor: Actor, seed: int, keep_rows: bool = False, max_steps: int = 0) -> Evaluation:
    """One episode in each of the M environments, acting without exploration noise; environment i starts from seed + i.

    An episode is cut after `max_steps` steps; 0: the task's time limit, or `MAX_STEPS` where it has none.
    """
    cap = max_steps or env.max_episode_steps or MAX_STEPS
    obs = env.reset(seed)
    actor.reset(torch.ones(env.num_envs, dtype=torch.bool))
    returns = torch.zeros(env.num_envs, dtype=torch.float64)
    lengths = torch.zeros(env.num_envs, dtype=torch.int64)
    running = torch.ones(env.num_envs, dtype=torch.bool)
    cut = 0
    rows: list[Experience] = []
    alive: list[Tensor] = []
    while running.any():
        action = finite_action(actor.act(obs, explore=False).cpu())
        out = env.step(action)
        ended = out.terminated | out.truncated
        counted = running & env.valid.cpu()
        returns += torch.where(counted, out.reward.double().cpu(), 0)
        lengths += counted
        over = lengths >= cap
        if keep_rows:
            rows.append(Experience(obs, action, out.reward, out.next_obs, out.terminated, ended | over))
            alive.append(counted)
        running = running & ~ended.cpu()
        cut += int((running & over).sum())
        running = running & ~over
        actor.reset(ended)
        obs = out.obs
    return Evaluation(returns, lengths, rows, alive, cut, cap)
