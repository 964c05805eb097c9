"""The data set of an offline run: read from its file while the run learns; what remains known of it suffices to act and to be scored."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces

from mbkit.config import Experiment, algorithm, parse_overrides
from mbkit.config.regimes import check_offline
from mbkit.envs import Environment
from mbkit.errors import UserError
from mbkit.loops.memory import available, check_memory, gigabytes
from mbkit.paths import is_file
from mbkit.replay.buffer import ReplayBuffer
from mbkit.replay.recorded import RecordedRows
from mbkit.storage import read_json, write_json
from mbkit.types import EnvSpec

if TYPE_CHECKING:
    from mbkit.data import Dataset

Space = spaces.Space[Any]
FILE = "data.json"  # in the run directory
FORM = {"path": str, "sha256": str, "rows": int, "episodes": int, "obs_dim": int, "choices": int, "start": int, "share": float}
BOX = ("action_low", "action_high")


def open_data(experiment: Experiment) -> "RunData | None":
    """The data set of an experiment, None where it learns online; UserError where the file cannot be read or a row fails a check."""
    if experiment.data is None:
        return None
    from mbkit.data import read

    return RunData.of(read(experiment.data), experiment.data_top)


def completed(algo: str, arguments: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """`options`, with the environment that the data set names where the user named none; `none` where it names none.

    Raises:
        UserError: the data set cannot be read.
    """
    tree = parse_overrides(arguments, options=options, verbatim=lambda key: key in ("data", "run_dir"))
    path = tree.get("data")
    if not isinstance(path, str) or "env" in tree:
        return dict(options)
    check_offline(algorithm(algo), path)
    from mbkit.data import read

    dataset = read(path)
    if dataset.env is None:
        return {**options, "env": "none"}
    kwargs = {} if "env_kwargs" in tree else {"env_kwargs": dataset.env_kwargs}
    return {**options, "env": dataset.env, **kwargs}


def recorded_spec(experiment: Experiment, data: "RunData | None", make_env: Callable[[int, int], Environment]) -> EnvSpec:
    """The dimensions of an offline run.

    Raises:
        UserError: there is no data set, the environment that scores the run has other dimensions, or it needs more memory than there is.
    """
    if data is None:
        raise UserError(f"{experiment.algo} learns from a fixed data set; data=FILE is missing")
    if data.present and experiment.env != "none":
        with make_env(1, experiment.seed) as env:
            data.check_env(env)
    if experiment.env == "none" and experiment.checkpoint.keep == "best":
        raise UserError("checkpoint.keep=best needs scores, and env=none gives none; expected last or all")
    check_memory(experiment, data.spec, 0)
    return data.spec


class RunData:
    """What a run knows of its data set; `dataset` is None where the file is not at hand, or not needed."""

    def __init__(self, about: Mapping[str, Any], dataset: "Dataset | None" = None) -> None:
        self.about, self.dataset = dict(about), dataset
        low = about["action_low"]
        self.spec = EnvSpec(about["obs_dim"], about["choices"] or len(low), torch.device("cpu"), bool(about["choices"]))

    @classmethod
    def of(cls, dataset: "Dataset", share: float = 1.0) -> "RunData":
        """The best `share` of a data set's episodes, by their returns; its fingerprint is computed, which reads the whole file.

        Raises:
            UserError: it has no rewards by which a share could be chosen.
        """
        sha256 = dataset.sha256
        if share < 1:
            from mbkit.data.selection import best

            dataset = best(dataset, share)
        box = {key: None if (bound := getattr(dataset, key)) is None else bound.tolist() for key in BOX}
        plain = {key: getattr(dataset, key) for key in ("rows", "episodes", "obs_dim", "choices", "start")}
        return cls({"path": str(dataset.path), "sha256": sha256, "share": float(share), **plain, **box}, dataset)

    @classmethod
    def stored(cls, directory: Path) -> "RunData":
        """What a run directory says of its data set; UserError where that is missing or odd."""
        path = directory / FILE
        if not is_file(path):
            raise UserError(f"{directory} is a run on a data set, but has no {FILE}, which describes it")
        about = read_json(path)
        if not isinstance(about, dict):
            raise UserError(f"{path} must hold an object; came a {type(about).__name__}")
        for key, kind in FORM.items():
            if type(about.get(key)) is not kind:
                raise UserError(f"{path}: {key} is {about.get(key)!r:.60}; expected {kind.__name__}")
        for key in BOX:
            bound = about.get(key)
            numbers = isinstance(bound, list) and bound and all(isinstance(x, int | float) for x in bound)
            if not (bound is None if about["choices"] else numbers):
                raise UserError(f"{path}: {key} is {bound!r:.60}; expected {'null' if about['choices'] else 'numbers'}")
        return cls(about)

    def write(self, directory: Path) -> None:
        """Write `data.json`."""
        write_json(directory / FILE, self.about)

    @property
    def present(self) -> bool:
        """Whether its rows can be read."""
        return self.dataset is not None

    @property
    def has_reward(self) -> bool:
        """Whether its rows have rewards; a data set that is not at hand counts as one that has."""
        return self.dataset is None or self.dataset.has_reward

    def check_same(self, other: "RunData") -> None:
        """UserError where the file at hand, `self`, is not the one that the run learned from, `other`."""
        if self.about["sha256"] != other.about["sha256"]:
            here, there = (f"sha256 {data.about['sha256'][:12]}" for data in (self, other))
            raise UserError(f"data={self.about['path']} is not the data set of this run: expected {there}, came {here}")

    def buffer(self, spec: EnvSpec) -> ReplayBuffer:
        """All rows, actions scaled; UserError where they need more memory than there is."""
        if self.dataset is None:
            raise UserError(f"data={self.about['path']} is not at hand")
        size = self.dataset.rows * (4 * (2 * spec.obs_dim + (1 if spec.discrete else spec.action_dim) + 3) + 24)
        free = available(spec.device.type).device
        if size > free:
            raise UserError(
                f"data={self.about['path']}: its {self.dataset.rows} rows need {gigabytes(size)} of memory, of which "
                f"{gigabytes(free)} are available; `mbkit data convert` with --episodes A:B makes a smaller data set"
            )
        return self.dataset.buffer(spec)

    def rows(self, spec: EnvSpec) -> RecordedRows:
        """Batches of its rows; from then on the mean return of its episodes is known too."""
        rows = RecordedRows(self.buffer(spec))
        if self.dataset is not None and self.dataset.has_reward:
            self.about["return_mean"] = float(rows.returns().double().mean())
        return rows

    # --- the task that was recorded -------------------------------------------------------------------------------------------------

    def check_env(self, env: Environment) -> None:
        """UserError where the environment that scores a run has other dimensions, or another action box, than the data."""
        has, wants = env.spec, self.spec
        if (has.obs_dim, has.action_dim, has.discrete, has.parts) != (wants.obs_dim, wants.action_dim, wants.discrete, wants.parts):
            here, there = (f"{s.obs_dim} observations and {s.action_dim} {'discrete ' * s.discrete}actions" for s in (has, wants))
            raise UserError(f"env={env.name} has {here}, but data={self.about['path']} has {there}; env=none scores nothing")
        if not wants.discrete:
            box = cast("spaces.Box", env.envs[0].action_space)
            low, high = (np.asarray(self.about[key]) for key in BOX)
            if not (np.allclose(box.low.reshape(-1), low) and np.allclose(box.high.reshape(-1), high)):
                raise UserError(
                    f"env={env.name} has actions in {box.low.reshape(-1).tolist()} to {box.high.reshape(-1).tolist()}, "
                    f"but data={self.about['path']} in {low.tolist()} to {high.tolist()}"
                )

    def spaces(self) -> tuple[Space, Space]:
        """Observations and actions of the recorded task, as those of an environment."""
        obs = spaces.Box(-np.inf, np.inf, (self.spec.obs_dim,))
        if self.spec.discrete:
            return obs, spaces.Discrete(self.about["choices"], start=self.about["start"])
        low, high = (np.asarray(self.about[key], np.float32) for key in BOX)
        return obs, spaces.Box(low, high)
