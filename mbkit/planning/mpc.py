"""Model-predictive control: plan, execute the first actions, plan again from where the last plan left off (PETS, arXiv:1805.12114).

Letters: M environments, H horizon, P particles, C proposals, O observation, A action.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mbkit.accelerate import Graphed, Mode, accelerated
from mbkit.errors import UserError
from mbkit.fields import at_least, option
from mbkit.planning.objective import Propose, open_loop_return
from mbkit.types import Dynamics, EnvSpec, Learnable, MeasureName, Plan, Planner, State, ValueFn


@dataclass(frozen=True)
class MPCConfig:
    """Receding-horizon control with a planner."""

    horizon: int = at_least(25, 1)  # planning horizon, H, in model steps. PETS: 25; halfcheetah: 30
    particles: int = at_least(20, 1, when="dynamics!=mujoco")  # model rollouts per candidate, P, whose returns are averaged. PETS: 20
    replan_every: int = at_least(1, 1)  # number of actions executed per plan. PETS: 1
    noise: float = at_least(0.0, 0, when="actions=continuous")  # standard deviation of the exploration noise on executed actions
    penalty: float = at_least(0.0, 0, when="dynamics!=mujoco")  # weight of an uncertainty that rewards are lowered by
    measure: MeasureName = option("disagreement", when="dynamics!=mujoco, penalty!=0")  # uncertainty measure of the penalty
    mode: Mode = "auto"  # execution mode; cudagraph, auto on CUDA: the whole plan is one CUDA graph; compile: torch.compile


class Receding(Planner, Protocol):
    """A planner whose plans can be continued."""

    budget_ms: float | None

    def shift(self, plan: Plan, steps: int) -> Plan: ...  # noqa: D102  # start of the next search, `steps` of the plan executed


class Executed(NamedTuple):
    """The step of the plans that was executed last."""

    obs: Tensor  # [M, O] planned for
    mean: Tensor  # [M, A], or probabilities [M, n] or [M, P, n] of discrete actions


class Guide(NamedTuple):
    """What an agent adds to plans (LOOP, Sikchi et al. 2020, arXiv:2008.10066)."""

    terminal_value: ValueFn | None = None  # value of a plan's last observation, where no step terminated
    propose: Propose | None = None  # proposals of a plan: candidates that take part in every iteration


class MPC:
    """Actor that plans with a model; it explores by replanning, and by `noise` where that is set.

    All M environments are planned for at once. When one begins a new episode its plan is dropped, and all replan at the next step: an
    action planned in another episode is never executed. `gamma` is the discount inside a plan; PETS: 1.
    """

    def __init__(
        self, spec: EnvSpec, planner: Receding, dynamics: Dynamics, cfg: MPCConfig, gamma: float = 1.0, guide: Guide | None = None
    ) -> None:
        if cfg.replan_every > cfg.horizon:
            raise UserError(f"replan_every={cfg.replan_every}: expected at most horizon={cfg.horizon}")
        if cfg.noise and spec.discrete:
            raise UserError(f"noise={cfg.noise} (agent.noise of pets, imagination.noise of loop): discrete actions take none, expected 0")
        if planner.budget_ms is not None and cfg.mode not in ("auto", "eager"):
            raise UserError(f"budget_ms={planner.budget_ms} reads the host clock, expected mode 'eager', got {cfg.mode!r}")
        self.spec, self.planner, self.dynamics, self.cfg = spec, planner, dynamics, cfg
        self.gamma, self.guide = gamma, guide or Guide()
        self.plan: Plan | None = None
        self._executed, self._due = 0, True
        self.tells = False  # `act` leaves what it executed in `executed`, for a policy that learns from it
        self.executed: Executed | None = None
        never = planner.budget_ms is not None or not getattr(dynamics, "capturable", False)  # a host's clock, or a model of the host's
        self._search = accelerated(self.search, "eager" if cfg.mode == "auto" and never else cfg.mode, spec.device)

    @property
    def score(self) -> Tensor | None:
        """The best score of each environment's plan [M]: -inf where there is none since its reset; None before the first plan."""
        return None if self.plan is None else self.plan.score

    def search(self, obs: Tensor, start: Plan) -> Plan:
        """One whole plan from obs [M, O]; pure but for the random numbers it draws."""
        objective = open_loop_return(self.dynamics, obs, self.cfg.particles, self.gamma, self.guide.terminal_value)
        return self.planner(objective, start, None if self.guide.propose is None else self.guide.propose(obs))

    @torch.no_grad()
    def act(self, obs: Tensor, explore: bool = True) -> Tensor:
        """The next planned action, obs [M, O] -> [M, A] in [-1, 1], or int64 [M] or [M, P]; plans where one is due."""
        obs = obs.to(self.spec.device, torch.float32)
        plan = self._start(len(obs)) if self.plan is None else self.plan
        if len(plan.mean) != len(obs):
            raise UserError(f"MPC holds plans of {len(plan.mean)} environments and was shown {len(obs)}; reset all of them first")
        if self._due or self._executed >= self.cfg.replan_every:
            plan = self._search(obs, self.planner.shift(plan, self._executed))
            self._executed, self._due = 0, False
        self.plan, action = plan, plan.actions[:, self._executed]
        if self.tells:  # a copy: the observation may lie in a buffer that the next one is written to
            self.executed = Executed(obs.clone(), plan.mean[:, self._executed])
        self._executed += 1
        if explore and self.cfg.noise:
            action = (action + self.cfg.noise * torch.randn_like(action)).clamp(-1, 1)
        return action

    def reset(self, mask: Tensor) -> None:
        """These environments, bool [M], begin a new episode: their plans are dropped. Another M drops all plans."""
        if self.plan is None or len(self.plan.mean) != len(mask):
            self.plan, self._executed, self._due = self._start(len(mask)), 0, True
        elif mask.any():  # one host sync per environment step, none where the mask lives on the host
            mask = mask.to(self.spec.device)
            pairs = zip(self._start(len(mask)), self.plan, strict=True)
            self.plan = Plan(*(torch.where(mask.view(-1, *(1 for _ in old.shape[1:])), new, old) for new, old in pairs))
            self._due = True

    def _start(self, problems: int) -> Plan:
        return self.planner.start(torch.empty((), device=self.spec.device), problems, self.cfg.horizon)

    def close(self) -> None:
        """End the threads of a model that simulates; a learned one is shared with other actors."""
        close = getattr(self.dynamics, "close", None)
        if callable(close) and not isinstance(self.dynamics, Learnable):
            close()

    def forget_graph(self) -> None:
        """Call after the model's tensors moved (not after they changed in place): a captured plan holds their addresses."""
        if isinstance(self._search, Graphed):
            self._search.forget()

    def state_dict(self) -> State:
        """The plan and how far it is executed; with the random states, everything the next action depends on."""
        plan: dict[str, Any] = {} if self.plan is None else self.plan._asdict()
        return {"plan": plan, "executed": self._executed, "due": self._due}

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict` was called. UserError where the plan has other dimensions than this planner's."""
        plan = Plan(**{name: x.to(self.spec.device) for name, x in state["plan"].items()}) if state["plan"] else None
        if plan is not None:
            for name, expected, saved in zip(Plan._fields, self._start(len(plan.mean)), plan, strict=True):
                if expected.shape != saved.shape or expected.dtype != saved.dtype:
                    raise UserError(
                        f"plan in the checkpoint: {name} is {saved.dtype} {[*saved.shape]}, expected {expected.dtype} {[*expected.shape]}"
                    )
        if not 0 <= state["executed"] <= self.cfg.horizon:
            raise UserError(f"plan in the checkpoint: {state['executed']} actions are executed, expected 0 to {self.cfg.horizon}")
        self.plan, self._executed, self._due = plan, int(state["executed"]), bool(state["due"])
