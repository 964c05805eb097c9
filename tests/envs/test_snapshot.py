"""A restored environment continues bit for bit: every MuJoCo v5 task, classic control, vector environments; others give a reason."""

import copy
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import types
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pygame
import pytest
import stateful_tasks
import torch
from gymnasium import spaces, wrappers
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stateful_tasks import TASKS, Point
from torch import Tensor

import mbkit.envs
from mbkit.envs import snapshot
from mbkit.envs.environment import Environment, single
from mbkit.envs.snapshot.kinds import KINDS
from mbkit.envs.snapshot.rebuild import Rebuild
from mbkit.errors import UserError
from mbkit.types import State

MUJOCO = [
    *("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Humanoid-v5", "HumanoidStandup-v5", "InvertedDoublePendulum-v5"),
    *("InvertedPendulum-v5", "Pusher-v5", "Reacher-v5", "Swimmer-v5", "Walker2d-v5"),
]
CLASSIC = ["Acrobot-v1", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"]
BENCHMARKS = ["cartpole", "halfcheetah", "pusher", "reacher"]
LIMIT = {"max_episode_steps": 45}  # an episode ends on either side of the snapshot at step 37 and after it


def actions(environment: Environment, steps: int) -> Tensor:
    """Random actions [T, M, A] or [T, M], the same in every call."""
    generator = torch.Generator().manual_seed(11)
    spec, m = environment.spec, environment.num_envs
    if spec.discrete:
        return torch.randint(spec.action_dim, (steps, m), generator=generator)
    return torch.rand(steps, m, spec.action_dim, generator=generator) * 2 - 1


def saved_and_loaded(state: State) -> State:
    """The state as read from a checkpoint: only tensors, numbers, strings and containers can be loaded."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def run(environment: Environment, plan: Tensor) -> list[Tensor]:
    """All results of these actions, valid rows or not."""
    return [x for action in plan for x in (*environment.step(action), environment.valid)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def check_continuation(build, before: int = 37, after: int = 60) -> None:
    straight, other = build(seed=5), build(seed=99)
    plan = actions(straight, before + after)
    straight.reset()
    run(straight, plan[:before])
    state = saved_and_loaded(straight.state_dict())
    assert straight.restart_reason is None
    expected = run(straight, plan[before:])
    assert any(flag.any() for flag in (*expected[3::6], *expected[4::6])), "no episode ended: the test would not see a reset"
    other.load_state_dict(state)
    assert torch.equal(other.obs, state["obs"])
    assert same(run(other, plan[before:]), expected)
    one, two = (environment.state_dict()["inside"]["nodes"] for environment in (other, straight))
    by_chance = "episode_start_time" in one or '"contacts"' in one  # a time of day, and memory that MuJoCo does not initialise
    assert one == two or by_chance
    used = build(seed=3)
    used.reset()
    run(used, plan[: before - 20])
    used.load_state_dict(state)
    assert same(run(used, plan[before:]), expected)
    for a, b in zip(straight.envs, used.envs, strict=True):
        assert np.array_equal(a.action_space.sample(), b.action_space.sample())


@pytest.mark.parametrize("name", MUJOCO + CLASSIC + BENCHMARKS)
def test_snapshot_restored_environment_continues_bit_for_bit(name: str) -> None:
    check_continuation(lambda seed: mbkit.envs.make(name, seed=seed, num_envs=2, env_kwargs=LIMIT))


def test_snapshot_tests_cover_every_mujoco_v5_task() -> None:
    tasks = {key for key, entry in gymnasium.registry.items() if ".mujoco." in str(entry.entry_point) and key.endswith("-v5")}
    assert tasks == set(MUJOCO)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("name", ["Hopper-v5", "CartPole-v1"])
def test_snapshot_vector_environment_in_every_autoreset_mode_continues(name: str, mode: AutoresetMode) -> None:
    def build(seed: int) -> Environment:
        return mbkit.envs.wrap(SyncVectorEnv([lambda: gymnasium.make(name, **LIMIT)] * 3, autoreset_mode=mode), seed=seed)

    for before in (37, 44, 45, 46):  # NEXT_STEP: also where a reset is pending
        check_continuation(build, before)


def test_snapshot_environment_vectorised_as_arrays_continues() -> None:
    def build(seed: int) -> Environment:
        return mbkit.envs.wrap(gymnasium.make_vec("CartPole-v1", num_envs=3), seed=seed)

    check_continuation(build)


def test_snapshot_wrappers_with_state_continue() -> None:
    def build(seed: int) -> Environment:
        env = gymnasium.wrappers.TimeAwareObservation(gymnasium.make("Pendulum-v1", **LIMIT))
        return single("stacked", [gymnasium.wrappers.FrameStackObservation(env, 2)], seed)

    check_continuation(build)


WRAPPERS: dict[str, Callable[[gymnasium.Env], gymnasium.Env]] = {
    "normalize observation": wrappers.NormalizeObservation,
    "normalize reward": wrappers.NormalizeReward,
    "transform reward": lambda env: wrappers.TransformReward(env, lambda reward: 2 * reward),
    "transform observation": lambda env: wrappers.TransformObservation(env, lambda obs: obs * 2, env.observation_space),
    "statistics": wrappers.RecordEpisodeStatistics,
    "time": lambda env: wrappers.TimeAwareObservation(env, flatten=False),
    "delay": lambda env: wrappers.DelayObservation(env, 2),
    "skip": wrappers.MaxAndSkipObservation,
    "sticky": lambda env: wrappers.StickyAction(env, 0.5),
    "rescale": lambda env: wrappers.RescaleAction(env, -1.0, 1.0),
    "filter": lambda env: wrappers.FilterObservation(wrappers.TimeAwareObservation(env, flatten=False), ["obs"]),
    "stacked": lambda env: wrappers.FrameStackObservation(wrappers.NormalizeObservation(env), 3),
    "autoreset": lambda env: wrappers.RecordEpisodeStatistics(wrappers.NormalizeReward(wrappers.ClipReward(env, -1, 1))),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_snapshot_gymnasium_wrappers_continue(name: str) -> None:
    check_continuation(lambda seed: single(name, [WRAPPERS[name](gymnasium.make("Pendulum-v1", **LIMIT)) for _ in range(2)], seed))


@pytest.mark.parametrize("wrapper", [wrappers.vector.NormalizeObservation, wrappers.vector.NormalizeReward])
def test_snapshot_wrappers_of_vector_environments_continue(wrapper: type) -> None:
    def build(seed: int) -> Environment:
        return mbkit.envs.wrap(wrapper(SyncVectorEnv([lambda: gymnasium.make("Pendulum-v1", **LIMIT)] * 2)), seed=seed)

    check_continuation(build)


def test_snapshot_restored_in_a_new_process_continues(tmp_path: Path) -> None:
    """Ant reads xpos, Humanoid xipos one substep stale; a process of its own shares nothing with this one."""
    code = (
        "import sys, torch, mbkit.envs as envs\n"
        "environment = envs.make('Humanoid-v5', env_kwargs={'max_episode_steps': 45})\n"
        "saved = torch.load(sys.argv[1], weights_only=True)\n"
        "environment.load_state_dict(saved['state'])\n"
        "same = all(torch.equal(x, y) for a, step in zip(saved['actions'], saved['steps']) for x, y in zip(environment.step(a), step))\n"
        "print('same' if same else 'differs')\n"
    )
    environment = mbkit.envs.make("Humanoid-v5", env_kwargs=LIMIT)
    plan = actions(environment, 40)
    environment.reset()
    run(environment, plan[:20])
    saved = {"state": environment.state_dict(), "actions": plan[20:], "steps": [tuple(environment.step(a)) for a in plan[20:]]}
    torch.save(saved, tmp_path / "saved.pt")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "saved.pt")], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.parametrize("name", ["Ant-v5", "Humanoid-v5"])
def test_snapshot_integration_state_alone_is_not_enough(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the derived arrays the next reward differs: so the tests above can fail."""
    which = mujoco.mjtState.mjSTATE_INTEGRATION

    def fill(data: Any, node: dict, resolve: Callable) -> None:
        whole, state = mujoco.MjData(data.model), np.empty(mujoco.mj_stateSize(data.model, which))
        fill_data(whole, node, resolve)
        mujoco.mj_getState(data.model, whole, state, which)
        mujoco.mj_setState(data.model, data, state, which)

    fill_data = KINDS["MjData"].fill
    monkeypatch.setitem(KINDS, "MjData", KINDS["MjData"]._replace(fill=fill))
    monkeypatch.setattr(Rebuild, "_verify", lambda self: None)
    with pytest.raises(AssertionError):
        check_continuation(lambda seed: mbkit.envs.make(name, seed=seed, env_kwargs=LIMIT))


class Odd(gymnasium.Env):
    """State of many types, with a view of memory that NumPy does not own, and one more attribute that a test chooses."""

    def __init__(self, extra: object = None) -> None:
        self.extra = extra
        self.observation_space = spaces.Dict({"position": spaces.Box(-np.inf, np.inf, (2,)), "kind": spaces.Discrete(3)})
        self.action_space = spaces.Discrete(2)
        self.memory = torch.zeros(2).numpy()
        self.history: deque[float] = deque(maxlen=3)
        self.table = {(0, "a"): np.float32(1), "b": [1, (2.5, None)]}
        self.visited = {3}
        self.legs = lambda: 2

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple:
        super().reset(seed=seed)
        self.memory[:] = self.np_random.random(2)
        return self._obs(), {}

    def _obs(self) -> dict:
        return {"position": self.memory + sum(self.history) + self.table[0, "a"], "kind": self.observation_space["kind"].sample()}

    def step(self, action: int) -> tuple:
        self.history.append(float(self.memory[0]) + action)
        self.table = {**self.table, (0, "a"): np.float32(self.table[0, "a"] * 1.1)}
        self.visited.add(len(self.visited) + 3)
        return self._obs(), len(self.visited), bool(self.np_random.random() < 0.1), False, {}


def test_snapshot_attributes_of_many_types_keep_their_types() -> None:
    check_continuation(lambda seed: single("odd", [Odd()], seed))
    one, two = single("odd", [Odd()], 0), single("odd", [Odd()], 1)
    one.reset()
    run(one, actions(one, 5))
    memory, generator = two.envs[0].memory, two.envs[0].np_random
    two.load_state_dict(saved_and_loaded(one.state_dict()))
    restored, original = two.envs[0], one.envs[0]
    assert restored.memory is memory
    assert restored.np_random is generator
    assert restored.history == original.history
    assert restored.history.maxlen == 3
    assert restored.table == original.table
    assert type(restored.table[0, "a"]) is np.float32
    assert restored.visited == original.visited
    assert restored.legs() == 2


UNSAVABLE: dict[str, Callable[[], object]] = {
    "list_iterator": lambda: iter([1]),
    "generator": lambda: (x for x in [1]),
    "lock": threading.Lock,
    "TextIOWrapper": lambda: open(os.devnull),  # noqa: SIM115
    "memmap": lambda: np.memmap(tempfile.NamedTemporaryFile(), shape=(2,)),  # noqa: SIM115
    "MaskedArray": lambda: np.ma.array([1.0]),
    "MjSpec": mujoco.MjSpec,
    "Mask": lambda: pygame.mask.Mask((1, 1)),
    "a tensor with a gradient's graph": lambda: torch.ones(1, requires_grad=True) * 2,
    "a weak reference with a callback": lambda: stateful_tasks.weakref.ref(Point, print),
}


@pytest.mark.parametrize("named", UNSAVABLE)
def test_restart_reason_unsavable_attribute_is_named_and_episodes_restart(named: str) -> None:
    extra = UNSAVABLE[named]()
    environment = single("odd", [Odd(), Odd(extra)], 4)
    first = environment.reset()
    plan = actions(environment, 8)
    run(environment, plan)
    reason = environment.restart_reason
    assert reason is not None
    assert reason.startswith("odd cannot be saved in mid-episode (attribute envs[1].extra is")
    assert named in reason
    state = saved_and_loaded(environment.state_dict())
    fresh, again = single("odd", [Odd(), Odd()], 4), single("odd", [Odd(), Odd()], 4)
    fresh.load_state_dict(state)
    again.load_state_dict(state)
    assert fresh.restart_reason == reason
    assert fresh.steps == 8
    assert not torch.equal(fresh.obs[:, 3:], first[:, 3:])
    assert torch.equal(fresh.obs[:, 3:], again.obs[:, 3:])
    fresh.step(plan[0])


def test_load_state_dict_state_of_another_environment_is_refused() -> None:
    hopper = mbkit.envs.make("Hopper-v5")
    hopper.reset()
    with pytest.raises(UserError, match="environment state does not fit: expected name 'Swimmer-v5', got 'Hopper-v5'"):
        mbkit.envs.make("Swimmer-v5").load_state_dict(hopper.state_dict())
    with pytest.raises(UserError, match="environment state does not fit: expected num_envs 2, got 1"):
        mbkit.envs.make("Hopper-v5", num_envs=2).load_state_dict(hopper.state_dict())
    with pytest.raises(UserError, match="environment state does not fit: expected name"):
        mbkit.envs.make("Hopper-v5").load_state_dict({})


def test_load_state_dict_state_before_the_first_reset_is_that_of_a_new_environment() -> None:
    new, other = mbkit.envs.make("Hopper-v5", seed=1), mbkit.envs.make("Hopper-v5", seed=1)
    other.load_state_dict(saved_and_loaded(new.state_dict()))
    assert torch.equal(other.reset(), new.reset())


def rewards(environment: Environment, plan: Tensor) -> list[float]:
    return [environment.step(action).reward.item() for action in plan]


@pytest.mark.parametrize("before", [3, 18, 28, 50])
@pytest.mark.parametrize("task", TASKS)
def test_snapshot_tasks_with_state_of_many_kinds_continue(task: type[Point], before: int) -> None:
    original = single("task", [task()], 0)
    original.reset()
    plan = actions(original, before + 60)
    rewards(original, plan[:before])
    state = saved_and_loaded(original.state_dict())
    assert original.restart_reason is None
    expected = rewards(original, plan[before:])
    for used in (False, True):
        restored = single("task", [task()], 1)
        if used:
            restored.reset()
            rewards(restored, plan[:7])
        restored.load_state_dict(state)
        assert restored.restart_reason is None
        assert rewards(restored, plan[before:]) == expected


def test_snapshot_tasks_with_state_of_many_kinds_continue_in_a_new_process(tmp_path: Path) -> None:
    code = (
        "import sys, torch, stateful_tasks\n"
        "from mbkit.envs.environment import single\n"
        "for name, state, plan, expected in torch.load(sys.argv[1], weights_only=True):\n"
        "    restored = single('task', [getattr(stateful_tasks, name)()], 1)\n"
        "    restored.load_state_dict(state)\n"
        "    rewards = [restored.step(action).reward.item() for action in plan]\n"
        "    print(name, restored.restart_reason, rewards == expected)\n"
    )
    saved = []
    for task in TASKS:
        original = single("task", [task()], 0)
        original.reset()
        plan = actions(original, 60)
        rewards(original, plan[:28])
        saved.append((task.__name__, original.state_dict(), plan[28:], rewards(original, plan[28:])))
    torch.save(saved, tmp_path / "saved.pt")
    environment = os.environ | {"PYTHONPATH": str(Path(stateful_tasks.__file__).parent)}
    command = [sys.executable, "-c", code, str(tmp_path / "saved.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout.splitlines() == [f"{task.__name__} None True" for task in TASKS], done.stderr


class Randomised(HopperEnv):
    """A Hopper whose model changes in every episode; it reads contacts and forces before it steps, and holds views of MuJoCo's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.part, self.mass = self.data.qpos[2:], self.model.body_mass[1:]
        self.torso, self.place = self.data.body("torso"), self.data.body("torso").xpos

    def reset_model(self) -> np.ndarray:
        self.model.opt.gravity[2] = -9.81 * self.np_random.uniform(0.8, 1.2)
        self.model.opt.timestep = 0.002 * self.np_random.uniform(0.9, 1.1)
        self.mass[:] *= self.np_random.uniform(0.9, 1.1, len(self.mass))
        self.shadow = mujoco.MjData(self.model)
        return super().reset_model()

    def step(self, action: np.ndarray) -> tuple:
        force, touch = np.zeros(6), 0.0
        for i in range(self.data.ncon):
            mujoco.mj_contactForce(self.model, self.data, i, force)
            touch += force.sum() + self.data.contact.dist[i]
        self.shadow.ctrl[:] = action
        mujoco.mj_step(self.model, self.shadow)
        before = self.part.sum() + self.torso.xpos[2] + self.place[0] + touch + self.data.efc_force.sum() + self.shadow.qpos.sum()
        obs, reward, *rest = super().step(action)
        return obs, reward + before, *rest


@pytest.mark.parametrize("before", [7, 23, 40])
def test_snapshot_mujoco_models_contacts_and_views_continue(before: int) -> None:
    check_continuation(lambda seed: single("hopper", [Randomised()], seed), before)


class Recompiled(Point):
    """A task that compiles another model in every episode."""

    def setup(self) -> None:
        bodies = "<body/>" * int(self.np_random.integers(1, 100))
        self.model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{bodies}</worldbody></mujoco>")

    def pay(self) -> float:
        return float(self.model.nbody)


def test_load_state_dict_mujoco_model_that_a_new_task_does_not_have_is_named() -> None:
    original, restored = single("task", [Recompiled()], 0), single("task", [Recompiled()], 1)
    original.reset()
    restored.load_state_dict(saved_and_loaded(original.state_dict()))
    assert "attribute envs[0].model is an MjModel, which a new task does not have" in (restored.restart_reason or "")


class Registered(Point):
    """Every instance is listed on the class; two attributes are one array at first."""

    instances: list[Point] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.instances.append(self)
        self.home = stateful_tasks.START

    def pay(self) -> float:
        self.home = self.home + 1
        return len(self.instances) + float(self.home.sum())


def test_load_state_dict_leaves_other_tasks_alone() -> None:
    original, restored = single("task", [Registered()], 0), single("task", [Registered()], 1)
    original.reset()
    plan = actions(original, 20)
    rewards(original, plan[:10])
    state, task = original.state_dict(), original.envs[0]
    start, x, t = stateful_tasks.START, original.envs[0].x.copy(), original.envs[0].t
    restored.load_state_dict(state)
    assert restored.envs[0] is not task
    assert restored.envs[0].home is not start
    assert stateful_tasks.START is start
    assert not start.any()
    assert (task.t, task.x.tolist()) == (t, x.tolist())


class Shown(Point):
    """What serves rendering or logging only stays what it is in the new task; game objects are state."""

    log = logging.getLogger("shown")

    def __init__(self) -> None:
        super().__init__()
        self.screen = self.clock = self.box = None
        self.viewers: dict[str, Any] = {}
        self.info = self.log.info

    def setup(self) -> None:
        self.screen, self.clock, self.viewers["a"] = pygame.Surface((2, 2)), pygame.time.Clock(), pygame.Surface((1, 1))
        self.box, self.speed = pygame.Rect(0, 0, 3, 4), pygame.Vector2(0.5, 0.25)

    def pay(self) -> float:
        self.speed *= 1.1
        self.box.move_ip(1, 2)
        self.info("step")
        return self.box.x + self.box.centery + self.speed.length()


def test_snapshot_rendering_is_left_out_and_game_objects_continue() -> None:
    original, restored = single("task", [Shown()], 0), single("task", [Shown()], 1)
    original.reset()
    plan = actions(original, 30)
    rewards(original, plan[:10])
    restored.load_state_dict(saved_and_loaded(original.state_dict()))
    assert restored.restart_reason is None
    assert rewards(restored, plan[10:]) == rewards(original, plan[10:])
    task = restored.envs[0]
    assert task.viewers == {}
    assert task.log is Shown.log
    restored.reset()
    screen = task.screen
    restored.load_state_dict(saved_and_loaded(original.state_dict()))
    assert task.screen is screen


class Visits(Point):
    """A set of pairs of numbers; from step 20 on items are removed."""

    def setup(self) -> None:
        self.visits: set[Any] = set()

    def pay(self) -> float:
        self.visits.add((self.t * 7919 % 101, self.t))
        if self.t > 20 and self.t % 3 == 0:
            self.visits.discard((self.t * 7919 % 101, self.t))
        return sum(i * item[0] for i, item in enumerate(self.visits))


def test_snapshot_set_lies_in_memory_as_before_or_is_named() -> None:
    reasons = {}
    for before in range(1, 40):
        original, restored = single("task", [Visits()], 0), single("task", [Visits()], 1)
        original.reset()
        plan = actions(original, 60)
        rewards(original, plan[:before])
        restored.load_state_dict(saved_and_loaded(original.state_dict()))
        reasons[before] = restored.restart_reason
        same_rewards = rewards(restored, plan[before:]) == rewards(original, plan[before:])
        assert same_rewards == (reasons[before] is None)
    assert not any(reasons[before] for before in range(1, 21))
    named = "attribute envs[0].visits is a set whose order cannot be restored"
    assert reasons[39] == f"task cannot be restored in mid-episode ({named}), so that new episodes began"


def module(text: str) -> types.ModuleType:
    """A module of the user's, as if it was imported."""
    made = types.ModuleType("edited_task")
    sys.modules["edited_task"] = made
    exec(text, vars(made))
    return made


BEFORE = """
from stateful_tasks import Point
GOAL = 1.0
class Edited(Point):
    def setup(self):
        self.gain = 1.0
    def pay(self):
        self.gain *= 1.1
        return self.gain + GOAL
"""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("1.1", "1.2", "class attribute Edited.pay is the function edited_task:Edited.pay, whose code has changed"),
        ("    def pay", "    def render(self): ...\n    def pay", "the class edited_task:Edited has a new method render"),
        ("class Edited", "class Renamed(Point): ...\nclass Edited", ""),
    ],
)
def test_load_state_dict_edited_code_is_named(old: str, new: str, named: str) -> None:
    original = single("task", [module(BEFORE).Edited()], 0)
    original.reset()
    rewards(original, actions(original, 5))
    state = saved_and_loaded(original.state_dict())
    restored = single("task", [module(BEFORE.replace(old, new)).Edited()], 0)
    restored.load_state_dict(state)
    assert named in (restored.restart_reason or "")
    assert (restored.envs[0].t == 5) == (not named)
    rewards(restored, actions(restored, 5))


def swapped() -> float:
    return 1.0


class Swapped(Point):
    """The reward is a function that does not exist before the first reset."""

    function: Callable[[], float]

    def setup(self) -> None:
        namespace: dict[str, Any] = {"__name__": "elsewhere"}
        exec("def made():\n    return 2.0", namespace)
        self.function = namespace["made"]

    def pay(self) -> float:
        return self.function()


def test_load_state_dict_function_that_a_new_task_does_not_have_is_named() -> None:
    original, restored = single("task", [Swapped()], 0), single("task", [Swapped()], 1)
    original.reset()
    restored.load_state_dict(saved_and_loaded(original.state_dict()))
    assert "attribute envs[0].function is the local function elsewhere:made, which a new task does not have" in (
        restored.restart_reason or ""
    )


def test_restart_reason_environments_in_other_processes_are_named() -> None:
    vector = AsyncVectorEnv([lambda: gymnasium.make("CartPole-v1")])
    environment = mbkit.envs.wrap(vector)
    assert "cannot be saved in mid-episode (attribute vector." in (environment.restart_reason or "")
    environment.close()


def test_restore_task_of_another_class_is_refused() -> None:
    state = snapshot.capture(mbkit.envs.make("Hopper-v5")._source)
    with pytest.raises(UserError, match="environment state does not fit: expected a SwimmerEnv, got a HopperEnv"):
        snapshot.restore(mbkit.envs.make("Swimmer-v5")._source, state)
    with pytest.raises(UserError, match="environment state does not fit: expected a VectorRows, got a SingleEnvs"):
        snapshot.restore(mbkit.envs.wrap(gymnasium.make_vec("CartPole-v1"))._source, state)
    with pytest.raises(UserError, match="environment state does not fit: expected 'mbkit task 1', got None"):
        snapshot.restore(mbkit.envs.make("Hopper-v5")._source, {})


class Commands(Point):
    """A task that holds a dangerous function."""

    def __init__(self) -> None:
        super().__init__()
        self.run, self.other = os.system, self.pay
        self.partial = stateful_tasks.functools.partial(self.pay)


def test_restore_crafted_state_calls_no_library_function_with_arguments(tmp_path: Path) -> None:
    task = single("task", [Commands()], 0)._source
    nodes = json.loads(snapshot.capture(task)["nodes"])
    system = next(n for n, node in enumerate(nodes) if node["head"] == ["constant", "posix:system"])
    partial = next(node for node in nodes if node["head"] == ["partial"])
    partial |= {"function": {"node": system}, "arguments": [f"touch {tmp_path / 'owned'}"]}
    with pytest.raises(snapshot.Unsavable, match="the function system with arguments that a new task does not have"):
        snapshot.restore(task, {"format": "mbkit task 1", "nodes": json.dumps(nodes)})
    unknown = [{"head": ["constant", "os:abort"]} if node == partial else node for node in nodes]
    with pytest.raises(snapshot.Unsavable, match="is the constant os:abort, which a new task does not have"):
        snapshot.restore(single("task", [Commands()], 0)._source, {"format": "mbkit task 1", "nodes": json.dumps(unknown)})


DAMAGED_TASKS = ("Containers", "Objects", "Shared", "Numbers", "Generators", "Torch", "Functions", "Classes", "Globals")
REPLACED = (None, True, -1, 10**30, 1.5, "", "os:system", [], {}, {"node": -1}, {"node": 10**9}, {"node": "a"}, {"looks": True})
CAPTURED: dict[str, str] = {}


def copied_task(name: str) -> Environment:
    """A task of a new copy of the module of tasks: a damaged state may damage classes."""
    copy = types.ModuleType("copied_tasks")
    sys.modules["copied_tasks"] = copy
    exec(compile(Path(stateful_tasks.__file__).read_text(), "copied_tasks", "exec"), vars(copy))
    return single("task", [vars(copy)[name]()], 0)


def captured(name: str) -> str:
    if name not in CAPTURED:
        environment = copied_task(name)
        environment.reset()
        run(environment, actions(environment, 20))
        CAPTURED[name] = snapshot.capture(environment._source)["nodes"]
    return CAPTURED[name]


def places(value: Any, way: tuple = ()) -> list[tuple]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for name, part in parts for place in places(part, (*way, name)))]


def check_damaged(name: str, data: st.DataObject) -> None:
    """A value inside one node replaced by another value, by another node's number, or by its content."""
    nodes = json.loads(captured(name))
    numbers = st.integers(0, len(nodes) - 1)
    node = nodes[data.draw(numbers)]
    *way, last = data.draw(st.sampled_from(places(node)[1:]))
    for part in way:
        node = node[part]
    other = data.draw(numbers)
    node[last] = data.draw(st.sampled_from([*REPLACED, {"node": other}, copy.deepcopy(nodes[other])]))
    environment = copied_task(name)
    try:
        snapshot.restore(environment._source, {"format": "mbkit task 1", "nodes": json.dumps(nodes)})
    except (UserError, snapshot.Unsavable) as error:
        sentence = str(error)
        assert "\n" not in sentence


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(DAMAGED_TASKS), st.data())
def test_restore_damaged_states_are_one_sentence(name: str, data: st.DataObject) -> None:
    check_damaged(name, data)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.sampled_from(DAMAGED_TASKS), st.data())
def test_restore_10000_damaged_states_are_one_sentence(name: str, data: st.DataObject) -> None:
    check_damaged(name, data)
