"""Agents of other runs: as priors of KL-regularised agents, and as what goes on learning."""

from pathlib import Path
from typing import Any

from torch import Tensor

from mbkit import registry
from mbkit.accelerate import rng_state, set_rng_state
from mbkit.agents.prior import PriorConfig, policy_of
from mbkit.config import from_dict, imports, read_yaml
from mbkit.errors import UserError
from mbkit.paths import is_dir, is_file, read_text
from mbkit.recording import named_checkpoint
from mbkit.types import EnvSpec


def prior_of_run(cfg: PriorConfig, spec: EnvSpec) -> Any:
    """The agent's policy at the last checkpoint of the run whose directory `agent.prior` names; None where it names something else.

    Raises:
        UserError: no run there, one with other dimensions, or one whose policy has no probabilities.
    """
    path = Path(cfg.prior)
    if ":" in cfg.prior or not is_dir(path):
        return None
    if not is_file(path / "config.yaml"):
        raise UserError(f"agent.prior={path}: expected the directory of a run; it has no config.yaml")
    before = rng_state()
    try:
        return policy_of(agent_of_run(path, spec), spec.discrete)
    except (UserError, KeyError, RuntimeError) as error:
        here = f"{spec.obs_dim} observations and {spec.action_dim} {'discrete actions' if spec.discrete else 'action dimensions'}"
        raise UserError(f"agent.prior={path} can be no prior of {here}: {str(error).splitlines()[0]}") from error
    finally:
        set_rng_state(before)  # making it spends none of the run's random numbers


def agent_of_run(path: Path, spec: EnvSpec) -> Any:
    """The agent of a run as it stood at its last checkpoint, for an environment of these dimensions."""
    file = path / "config.yaml"
    run = from_dict(read_yaml(read_text(file), str(file)))
    if run.agent is None or run.agent.name not in registry.agents:
        raise UserError(f"{run.algo} learns no policy")
    imports.announce(run, path)
    prior = prior_of_run(run.agent.config, spec) if isinstance(run.agent.config, PriorConfig) else None
    make = registry.agents[run.agent.name].target
    agent = make(spec, run.agent.config, run.gamma, **({} if prior is None else {"prior": prior}))
    fill(agent, path, "last")
    return agent


def fill(agent: Any, path: Path, checkpoint: str) -> int:
    """Give the agent the state of the one that a run's checkpoint holds: "last", "best" or a stored step; returns its step.

    Raises:
        UserError: no such checkpoint, or one of an agent with other networks.
    """
    step, state = named_checkpoint(path / "checkpoint", checkpoint)
    saved = state["parts"].get("agent")
    if saved is None:
        raise UserError(f"the checkpoint of {path} at step {step} holds no agent")
    here = agent.state_dict()
    for key, x in here.items():
        if isinstance(x, Tensor) and key in saved and saved[key].shape != x.shape:
            was, wants = (list(tensor.shape) for tensor in (saved[key], x))
            raise UserError(f"its networks were made for other dimensions: {key} is {was}, expected {wants}")
    if odd := sorted(here.keys() ^ saved.keys()):
        raise UserError(f"its agent was made with other options: {odd[0]} is there in one of the two alone")
    agent.load_state_dict(saved)
    return step
