"""What is known of a task: one record for models, notes for the user, and a user's functions, loaded and checked."""

import subprocess
import sys
from dataclasses import replace

import gymnasium
import pytest
import torch
from gymnasium.envs.registration import WrapperSpec

from mbkit.envs import knowledge_notes, known, task_knowledge
from mbkit.envs.rewards import inverted_pendulum_fell, never
from mbkit.errors import UserCodeError, UserError
from mbkit.types import EnvSpec, TaskKnowledge

WITH_X = {"exclude_current_positions_from_observation": False}


def spec(obs_dim, action_dim, discrete=False):
    return EnvSpec(obs_dim, action_dim, torch.device("cpu"), discrete)


def test_task_knowledge_auto_is_what_is_known_of_the_task():
    obs, action = torch.full((2, 4), 0.1), torch.ones(2, 1)
    task = task_knowledge("InvertedPendulum-v5", spec(4, 1))
    assert torch.equal(task.reward(obs, action, obs), torch.ones(2))
    assert task.termination is inverted_pendulum_fell
    assert (task.preprocess, task.absolute) == (None, ())
    assert task_knowledge("Mine-v0", spec(4, 1)) == TaskKnowledge()
    assert task_knowledge("HalfCheetah-v5", spec(17, 6)).reward is None
    task = task_knowledge("HalfCheetah-v5", spec(18, 6), WITH_X)
    assert task.reward is not None
    assert task.termination is never


@pytest.mark.parametrize(("reward", "kwargs", "part"), [
    ("auto", {}, True),
    ("learned", {}, True),
    ("learned", WITH_X, True),
    ("auto", WITH_X, False),  # the whole is known
])  # fmt: skip
def test_task_knowledge_learned_reward_leaves_out_what_is_known(reward, kwargs, part):
    task = task_knowledge("Hopper-v5", spec(11 + bool(kwargs), 3), kwargs, reward=reward)
    assert (task.reward is None, task.reward_part is not None) == (part, part)
    assert task_knowledge("Pendulum-v1", spec(3, 1), reward="learned").reward_part is None


def test_task_knowledge_benchmark_has_the_papers_inputs_and_targets():
    cheetah = task_knowledge("mbkit/halfcheetah-v0", spec(18, 6))
    assert cheetah.preprocess is known.benchmark("halfcheetah").preprocess
    assert cheetah.absolute == (0,)
    assert task_knowledge("reacher", spec(17, 7)).preprocess is None


def test_task_knowledge_learned_or_never_has_no_function():
    task = task_knowledge("cartpole", spec(4, 1), reward="learned", termination="learned")
    assert (task.reward, task.termination) == (None, None)
    assert task.preprocess is not None
    assert task_knowledge("InvertedPendulum-v5", spec(4, 1), termination="never").termination is None


def test_task_knowledge_import_path_is_a_users_function_checked_on_zeros(tmp_path, monkeypatch):
    (tmp_path / "my_task_8.py").write_text(
        "def height(obs, action, next_obs):\n    return next_obs[:, 0]\n"
        "def low(obs, action, next_obs):\n    assert action.shape == (len(obs), 1)\n    return height(obs, action, next_obs) < 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    obs = torch.tensor([[2.0, 1.0]])
    task = task_knowledge("Pendulum-v1", spec(2, 1), reward="my_task_8:height", termination="my_task_8:low")
    assert task.reward(obs, obs[:, :1], obs) == 2
    assert not task.termination(obs, obs[:, :1], obs)
    with pytest.raises(UserError, match=r"^reward my_task_8:low of obs \[2, 2\], action \[2, 1\], .*: expected .* got torch.bool"):
        task_knowledge("Pendulum-v1", spec(2, 1), reward="my_task_8:low")
    with pytest.raises(UserError, match=r"^termination my_task_8:low of obs \[2, 2\], action \[2\], .* got AssertionError"):
        task_knowledge("CartPole-v1", spec(2, 2, discrete=True), termination="my_task_8:low")
    with pytest.raises(UserError, match="did you mean 'height'"):
        task_knowledge("Pendulum-v1", spec(2, 1), reward="my_task_8:heigth")


def test_knowledge_notes_name_what_is_not_known():
    assert knowledge_notes("CartPole-v1", None, "auto", "auto", True) == []
    assert knowledge_notes("HalfCheetah-v5", {}, "auto", "auto", True) == [known.why_learned("HalfCheetah-v5")]
    assert knowledge_notes("HalfCheetah-v5", WITH_X, "auto", "auto", True) == []
    for learnable, advice in ((True, "; with dynamics.termination=learned it learns when they do"), (False, "")):
        reward, termination = knowledge_notes("Mine-v0", {}, "auto", "auto", learnable)
        assert reward == known.why_learned("Mine-v0")
        assert termination == f"The model assumes that episodes of Mine-v0 never terminate{advice}."
    assert knowledge_notes("Mine-v0", {}, "learned", "never", True) == []
    assert knowledge_notes("Mine-v0", {}, "pkg.mod:fn", "pkg.mod:fn", True) == []


def test_import_of_envs_does_not_import_mujoco():
    """In a process of its own: a wrong MUJOCO_GL, which makes MuJoCo's import fail, is reported by `make`."""
    code = "import sys, mbkit.envs\nassert 'mujoco' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", ["cartpole", "reacher", "pusher", "halfcheetah", "mbkit/cartpole-v0"])
def test_benchmark_never_terminates_and_its_reward_has_gradients(name):
    task = known.benchmark(name)
    obs, action = torch.zeros(5, 2, task.env.obs_dim), torch.zeros(5, 2, {"cartpole": 1, "halfcheetah": 6}.get(name.split("/")[0], 7))
    action, obs = action[..., : 1 if "cartpole" in name else None].requires_grad_(), obs.requires_grad_()
    known.reward_fn(name)(obs, action, obs).sum().backward()
    assert obs.grad.isfinite().all()
    assert action.grad.isfinite().all()
    ended = known.termination_fn(name)(obs, action, obs)
    assert ended.shape == (5, 2)
    assert not ended.any()


@pytest.mark.parametrize(("name", "kwargs", "word"), [
    ("HalfCheetah-v5", {}, "position"),
    ("Hopper-v5", {}, "position"),
    ("HalfCheetah-v5", WITH_X | {"xml_file": "mine.xml"}, "xml_file"),
    ("Ant-v5", WITH_X, "contact"),
    ("Humanoid-v5", {}, "contact"),
    ("Mine-v0", {}, "pkg.mod:fn"),
])  # fmt: skip
def test_why_learned_names_the_reason(name, kwargs, word):
    assert known.reward_fn(name, kwargs) is None
    assert word in known.why_learned(name, kwargs)
    assert known.why_learned(name, kwargs).endswith(".")


def test_known_other_environment_has_no_functions():
    assert known.reward_fn("Mine-v0") is None
    assert known.termination_fn("Mine-v0") is None
    assert known.preprocess("Mine-v0") is None
    assert known.absolute_dims("Mine-v0") == ()


def test_load_fn_finds_a_function_on_the_python_path(tmp_path, monkeypatch):
    (tmp_path / "my_task_7.py").write_text("def height(obs, action, next_obs):\n    return next_obs[:, 0]\nlimit = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    obs = torch.tensor([[2.0, 1.0]])
    assert known.load_fn("my_task_7:height")(obs, obs, obs) == 2
    with pytest.raises(UserError, match="did you mean 'height'"):
        known.load_fn("my_task_7:heigth")
    with pytest.raises(UserError, match="is a int; expected a function"):
        known.load_fn("my_task_7:limit")


def test_load_fn_names_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_task_7.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"package\.module:function"):
        known.load_fn("no_colon")
    with pytest.raises(UserError, match="'no_such_module_7'"):
        known.load_fn("no_such_module_7:fn")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        known.load_fn("broken_task_7:fn")


@pytest.mark.parametrize(("kind", "fn", "result"), [
    ("reward", lambda o, a, n: 1 / 0, "ZeroDivisionError: division by zero"),
    ("reward", lambda o, a: o[:, 0], "TypeError"),
    ("reward", lambda o, a, n: n.numpy()[:, 0], "got a numpy.ndarray$"),
    ("reward", lambda o, a, n: 1.0, "got a float$"),
    ("reward", lambda o, a, n: n[:, :1], r"got torch.float32 \[2, 1\]"),
    ("reward", lambda o, a, n: n[:, 0] > 0, r"got torch.bool \[2\]"),
    ("reward", lambda o, a, n: n[:, 0] / 0, "got NaN everywhere on zeros"),
    ("termination", lambda o, a, n: n[:, 0], r"a bool tensor of shape \[2\], got torch.float32 \[2\]"),
    ("termination", lambda o, a, n: (n > 0).any(), r"got torch.bool \[\]"),
])  # fmt: skip
def test_check_fn_wrong_result_of_a_users_function_is_named(kind, fn, result):
    with pytest.raises(UserError, match=rf"^{kind} pkg.mod:fn of obs \[2, 3\], action \[2, 1\], next_obs \[2, 3\]: expected .*{result}"):
        known.check_fn(fn, "pkg.mod:fn", spec(3, 1), kind)


def test_check_fn_correct_function_is_accepted():
    known.check_fn(lambda o, a, n: torch.tensor([torch.nan, 0.0]), "m:f", spec(3, 1), "reward")
    known.check_fn(lambda o, a, n: (o * a)[:, 0].double(), "m:f", spec(3, 1), "reward")
    known.check_fn(lambda o, a, n: (a[:, 0] + a[:, 1]).float(), "m:f", spec(3, 5, discrete=True)._replace(parts=(3, 2)), "reward")
    known.check_fn(lambda o, a, n: a == torch.nn.functional.one_hot(a, 2)[:, 1], "m:f", spec(3, 2, discrete=True), "termination")


@pytest.mark.parametrize("name", ["Pendulum-v1", "InvertedPendulum-v5", "mbkit/cartpole-v0"])
@pytest.mark.parametrize("change", ["kwargs", "wrapper", "entry"])
def test_known_functions_hold_only_for_the_task_they_were_written_for(monkeypatch, name, change):
    known.benchmark("cartpole")  # registers
    entry = gymnasium.registry[name]
    wrapper = WrapperSpec("TransformReward", "gymnasium.wrappers:TransformReward", None)
    other = {"kwargs": {"kwargs": {"g": 1}}, "wrapper": {"additional_wrappers": (wrapper,)}, "entry": {"entry_point": "mine:Task"}}[change]
    assert known.reward_fn(name) is not None
    monkeypatch.setitem(gymnasium.registry, name, replace(entry, **other))
    assert task_knowledge(name, spec(4, 1)) == TaskKnowledge()
    assert "not the task that mbkit's formula was written for" in known.why_learned(name)


@pytest.mark.parametrize("name", ["InvertedPendulum-v5", "Reacher-v5", "Hopper-v5", "Humanoid-v5"])
def test_known_functions_do_not_hold_for_another_body(name):
    body = {"xml_file": "mine.xml"}
    assert known.reward_fn(name, body) is known.termination_fn(name, body) is None
    assert "xml_file" in known.why_learned(name, body)


def later(obs, action, next_obs):
    """A reward that works on the two rows of the check, and on no others."""
    if len(obs) != 2:
        raise ValueError("only two rows")
    return next_obs[:, 0]


def two_numbers(obs, action, next_obs):
    return torch.zeros(2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("reward", "termination", "sentence"),
    [
        (later, "never", r"^reward tests.envs.test_known:later raised ValueError: only two rows$"),
        ("learned", later, r"expected a bool tensor"),
        ("learned", two_numbers, r"^termination .*two_numbers of obs \[5, 3\]: expected a tensor \[5\], got \[2\]$"),
    ],
)
def test_user_function_that_fails_after_its_check_is_named(reward, termination, sentence):
    spec, rows = EnvSpec(3, 1, torch.device("cpu")), (torch.randn(5, 3), torch.rand(5, 1), torch.randn(5, 3))

    def use():
        task = task_knowledge("Mine-v0", spec, None, reward, termination)
        (task.reward or task.termination)(*rows)

    with pytest.raises(UserError, match=sentence) as caught:
        use()
    assert isinstance(caught.value, UserCodeError) == isinstance(caught.value.__cause__, ValueError)


def test_user_function_that_lacks_memory_is_not_blamed():
    def large(obs, action, next_obs):
        if len(obs) != 2:
            raise RuntimeError("CUDA out of memory")
        return next_obs[:, 0]

    task = task_knowledge("Mine-v0", EnvSpec(3, 1, torch.device("cpu")), None, large, "never")
    with pytest.raises(RuntimeError, match="out of memory"):
        task.reward(torch.randn(5, 3), torch.rand(5, 1), torch.randn(5, 3))
