"""Priors of KL-regularised agents that are the policy of another run."""

from pathlib import Path
from typing import Any

from torch import Tensor

from mbkit import registry
from mbkit.accelerate import rng_state, set_rng_state
from mbkit.agents.prior import PriorConfig, policy_of
from mbkit.config import from_dict, imports, read_yaml
from mbkit.errors import UserError
from mbkit.recording import load_checkpoint
from mbkit.types import EnvSpec


def prior_of_run(cfg: PriorConfig, spec: EnvSpec) -> Any:
    """The agent's policy at the last checkpoint of the run whose directory `agent.prior` names; None where it names something else.

    Raises:
        UserError: no run there, one with other dimensions, or one whose policy has no probabilities.
    """
    path = Path(cfg.prior)
    if ":" in cfg.prior or not path.is_dir():
        return None
    if not (path / "config.yaml").is_file():
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
    run = from_dict(read_yaml(file.read_text(), str(file)))
    if run.agent is None or run.agent.name not in registry.agents:
        raise UserError(f"{run.algo} learns no policy")
    imports.announce(run, path)
    prior = prior_of_run(run.agent.config, spec) if isinstance(run.agent.config, PriorConfig) else None
    make = registry.agents[run.agent.name].target
    agent = make(spec, run.agent.config, run.gamma, **({} if prior is None else {"prior": prior}))
    saved = load_checkpoint(path / "checkpoint")[1]["parts"]["agent"]
    if any(isinstance(x, Tensor) and k in saved and saved[k].shape != x.shape for k, x in agent.state_dict().items()):
        raise UserError(f"its networks were made for other dimensions, those of {run.env}")
    agent.load_state_dict(saved)
    return agent
