"""`.hydra/config.yaml` of mbrl-lib's results directories, as data: nothing that it names is imported or called.

Hydra calls what a configuration names by `_target_`. Here names are looked up in fixed lists, and of OmegaConf's interpolations only
references to another value of the file, `${group.option}`, are followed: no resolvers such as `${oc.env:...}`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mbkit.errors import UserError
from mbkit.paths import exists, read_text, reason, short

SETTINGS = ".hydra/config.yaml"
LONGEST = 1_000_000  # bytes of a configuration that is read
REFERENCE = re.compile(r"\$\{[\w.]+\}")
ACTIVATION = {"silu": "torch.nn.SiLU", "relu": "torch.nn.ReLU", "tanh": "torch.nn.Tanh", "elu": "torch.nn.ELU", "gelu": "torch.nn.GELU"}
PROCESSES = {  # observation processing: mbrl-lib's two functions, and ours, which compute the same -> the PETS task it belongs to
    "mbrl.env.pets_cartpole.CartPoleEnv.preprocess_fn": "cartpole",
    "mbrl.env.pets_halfcheetah.HalfCheetahEnv.preprocess_fn": "halfcheetah",
    "mbkit.envs.benchmarks.cartpole.preprocess": "cartpole",
    "mbkit.envs.benchmarks.halfcheetah.preprocess": "halfcheetah",
}
Process = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings of a saved model that its weights do not show; defaults are those of mbrl-lib's own PETS and MBPO configurations."""

    activation: str = ACTIVATION["silu"]
    target_is_delta: bool = True
    no_delta: tuple[int, ...] = ()  # outputs that are the next observation itself
    obs_process: str | None = None  # import path
    learned_rewards: bool = False


def read_settings(directory: str | Path) -> Settings | None:
    """The model's settings in `.hydra/config.yaml`; None where there is no such file.

    Raises:
        UserError: the file is no configuration of mbrl-lib, or a setting is of another type or not in its list.
    """
    path = Path(directory) / SETTINGS
    if not exists(path):
        return None
    try:
        config = OmegaConf.create(inert(read_plain(path)))
        pick = OmegaConf.select
        activation = pick(config, "dynamics_model.activation_fn_cfg", default=None)
        return Settings(
            activation=activation_name(None if activation is None else OmegaConf.to_container(activation, resolve=True)),
            target_is_delta=truth("algorithm.target_is_delta", pick(config, "algorithm.target_is_delta", default=True)),
            no_delta=dimensions(pick(config, "overrides.no_delta_list", default=None)),
            obs_process=name_of("overrides.obs_process_fn", pick(config, "overrides.obs_process_fn", default=None)),
            learned_rewards=truth("algorithm.learned_rewards", pick(config, "algorithm.learned_rewards", default=True)),
        )
    except (OmegaConfBaseException, yaml.YAMLError, OSError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise UserError(f"{short(path)} cannot be read as a configuration of mbrl-lib: {reason(error)[:160]}") from error


def read_plain(path: Path) -> dict[str, Any]:
    """The file's mappings, lists, strings and numbers; ValueError where it is too long, repeats parts by anchors, or is no mapping."""
    if path.stat().st_size > LONGEST:
        raise ValueError(f"it has more than {LONGEST} bytes")
    text = read_text(path)
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
        raise ValueError("it repeats parts by YAML anchors, which mbrl-lib does not write")
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}; expected groups of options")
    return content


def inert(value: Any) -> Any:
    """A copy in which strings with anything else than one whole reference interpolate nothing."""
    if isinstance(value, dict):
        return {key: inert(v) for key, v in value.items()}
    if isinstance(value, list):
        return [inert(v) for v in value]
    if isinstance(value, str) and "${" in value and not REFERENCE.fullmatch(value):
        return value.replace("${", "{")
    return value


def activation_name(config: Any) -> str:
    """The activation's import path, one of ACTIVATION; without a configuration mbrl-lib takes ReLU."""
    if config is None:
        return ACTIVATION["relu"]
    name = config.get("_target_")
    if name not in ACTIVATION.values():
        raise ValueError(f"its activation is {name!r}; expected one of {', '.join(ACTIVATION.values())}")
    if len(config) > 1:
        raise ValueError(f"its activation {name} has arguments {sorted(map(str, set(config) - {'_target_'}))}; expected none")
    return str(name)


def truth(name: str, value: Any) -> bool:
    """`value`; ValueError unless it is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; expected true or false")
    return value


def dimensions(value: Any) -> tuple[int, ...]:
    """The numbers of a list of dimensions, none for null; ValueError for anything else."""
    numbers = () if value is None else (value,) if isinstance(value, str) else tuple(value)
    if any(isinstance(number, bool) or not isinstance(number, int) or number < 0 for number in numbers):
        raise ValueError(f"overrides.no_delta_list is {value!r}; expected a list of dimensions")
    return numbers


def name_of(option: str, value: Any) -> str | None:
    """`value`; ValueError unless it is a string or null."""
    if not isinstance(value, str | None):
        raise ValueError(f"{option} is {value!r}; expected an import path")
    return value


def named_process(path: str | None) -> Process | None:
    """The observation processing that a results directory names, one of PROCESSES; nothing is imported by a file's name."""
    if path is None:
        return None
    if path not in PROCESSES:
        known = "CartPoleEnv.preprocess_fn or HalfCheetahEnv.preprocess_fn of mbrl.env, or `task.preprocess`"
        raise UserError(f"the saved model processes observations by {path!r}; expected {known}")
    from mbkit.envs.benchmarks import TASKS  # imports MuJoCo

    return TASKS[PROCESSES[path]].preprocess
