"""Every algorithm on a CUDA device: CUDA graphs, and a run that is resumed, end as calls operator by operator do."""

import sys
from pathlib import Path

import pytest
import torch
from model_based_offline import EPISODES, MOREL_SAC, SMALL, random_steps
from resumption import final_state, same

import mbkit
from mbkit.data import write
from mbkit.registry import agents
from mbkit.run import collect
from mbkit.testing import tensors

SHARED = ("device=cuda", "threads=1", "eval.episodes=1", "eval.max_steps=2", "eval.video=false", "loop.log_every=10")
MODEL = ("dynamics.hidden=[8]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=1", "dynamics.batch=16")
REPLAY = ("agent.hidden=[8]", "loop.warmup_steps=10", "loop.batch_size=16", "loop.buffer_size=100", "loop.num_envs=1")
FITTED = (*REPLAY, *MODEL, "loop.fit_every=8", "loop.updates_per_step=2")
PLAN = (*MODEL, "loop.warmup_steps=10", "loop.buffer_size=100", "loop.fit_every=8", "agent.horizon=3", "agent.particles=4")
CEM = ("planner=cem", "planner.candidates=12", "planner.elites=3", "planner.iterations=2")
BRANCH = (*FITTED, "imagination.rollouts_per_step=4", "imagination.memory_gb=0.01")
OFFLINE = ("agent.hidden=[8]", "loop.batch_size=20")
TRAJECTORY = ("agent.hidden=[8]", "loop.rollout_steps=6", "loop.num_envs=2")
OF_MODELS = {
    "pets icem": (*PLAN, "planner.candidates=12", "planner.elites=3", "planner.iterations=2"),
    "pets cem, local linear": ("dynamics=local_linear", "dynamics.centres=4", *PLAN[len(MODEL) :], *CEM),
    "pets mppi, moments": (*PLAN, "planner=mppi", "planner.candidates=12", "dynamics.propagation=moment_matching"),
    "pets shooting, penalty": (*PLAN, "planner=shooting", "planner.candidates=12", "agent.penalty=1", "env=Pendulum-v1"),
    "pets discrete": (
        *PLAN,
        "env=CartPole-v1",
        "planner=discrete_cem",
        "planner.candidates=12",
        "planner.elites=3",
        "dynamics.propagation=ts1",
    ),
    "pets distilled": (*PLAN, *CEM, "imagination.distill=true", "imagination.distill_hidden=[8]", "imagination.distill_batch_size=8"),
    "loop": (*FITTED, *CEM, "imagination.horizon=2", "imagination.particles=2"),
    "mbpo": BRANCH,
    "mbpo m2ac": (*BRANCH, "imagination.gate=m2ac"),
    "mbpo macura": (*BRANCH, "imagination.gate=macura"),
    "mba": (*FITTED, "imagination.memory_gb=0.01"),
    "dyna": FITTED,
    "mve": FITTED,
    "mve steve": (*FITTED, "agent=sac", "imagination.weighting=steve", "imagination.horizon=2"),
    "svg": (*FITTED, "imagination.horizon=2", "imagination.target_horizon=2"),
    "svg dhmbpo": (*FITTED, "imagination.horizon=2", "imagination.spread=3", "imagination.memory_gb=0.01", "imagination.max_grad_norm=1"),
    "svg td3": (*FITTED, "agent=td3", "agent.delay=1", "imagination.horizon=2", "dynamics.propagation=ts1"),
    "mopo": (*OFFLINE, *MODEL, *SMALL["mopo"]),
    "morel": (*MODEL, *EPISODES, "agent.hidden=[8]"),
    "morel sac": (*MODEL, *MOREL_SAC, *OFFLINE),
    "combo": (*OFFLINE, *MODEL, *SMALL["combo"]),
    "rambo": (*OFFLINE, *MODEL, *SMALL["rambo"]),
    "mobile": (*OFFLINE, *MODEL, *SMALL["mobile"]),
    "sac normalized": (*REPLAY, "agent.normalize_obs=true", "loop.n_step=3"),
    "sac xqc": (*REPLAY, "agent.critic=batch_norm", "agent.loss=c51", "agent.initial_temperature=0.01"),
    "td3 simba": (*REPLAY, "agent.critic=simba", "agent.loss=hl_gauss", "agent.delay=1"),
    "dqn falling": (*REPLAY, "agent.lr=1e-3", "agent.final_lr=0"),
    "sac falling": (*REPLAY, "agent.lr=1e-3", "agent.final_lr=1e-4"),
    "dqn simba v2": (*REPLAY, "agent.critic=simba_v2", "agent.loss=c51"),
    "vtrace stored": (*TRAJECTORY, "loop.stored_rollouts=2", "loop.off_policy_updates=1"),
    "ppo annealed": (*TRAJECTORY, "agent.anneal_lr=true", "agent.epochs=2", "agent.minibatch=4"),
}
SHORT = {
    "awr": ("agent.relabel_every=2",),
    "fqi": ("loop.updates_per_step=0.5", "agent.gradient_steps=3"),
    "dpg": ("loop.batch_size=1",),
    "cql": ("agent.samples=2",),
    "td3": ("agent.delay=1",),  # otherwise a graph holds two updates, which an eager run makes a step apart
}


def options(name: str) -> tuple[str, ...]:
    """Options of an agent alone that make it small, by what it learns from."""
    sources = agents[name].learns_from
    if "replay" in sources:
        return (*REPLAY, *SHORT.get(name, ()))
    if "dataset" in sources:
        return (*OFFLINE, *SHORT.get(name, ()))
    return (*(("agent.hidden=[8]", "loop.num_envs=1") if "fresh" in sources else TRAJECTORY), *SHORT.get(name, ()))


ALONE = [e.name for e in agents if e.target.__module__.startswith("mbkit.") and e.name not in ("vtrace", "ppo")]
CASES = {name: options(name) for name in ALONE} | OF_MODELS
DISCRETE = ("cql_discrete", "ddqn_bc")
# The others are slow; their updates are captured in `test_sync`, too.
ALWAYS = {"sac", "dqn", "dpg", "cql_discrete", "vtrace stored", "ppo annealed", "pets icem", "loop", "mbpo m2ac", "dyna", "mve steve"}
ALWAYS |= {"pets distilled", "sac xqc", "svg dhmbpo", "dqn simba v2", "sac falling", "morel", "combo", "rambo", "mobile"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Random steps of a task with continuous and of one with discrete actions."""
    folder = tmp_path_factory.mktemp("data")
    return {
        False: random_steps(folder / "continuous.npz"),
        True: write(collect(["random"], 60, "CartPole-v1", seed=1), folder / "discrete.npz"),
    }


@pytest.mark.gpu
@pytest.mark.parametrize("case", [case if case in ALWAYS else pytest.param(case, marks=pytest.mark.slow) for case in CASES])
def test_graphs_and_a_resumption_end_as_eager_calls(case, tmp_path, data):
    """The same experiment eagerly, with graphs, and with graphs from its checkpoint halfway on."""
    algo, offline = case.split()[0], "loop.batch_size=20" in CASES[case] or case == "morel"
    source = (f"data={data[algo in DISCRETE]}",) if offline else ()
    steps, halfway = (12, 6) if offline else (24, 18)
    chosen = (*SHARED, *source, *CASES[case], f"checkpoint.every={halfway}", "checkpoint.keep=all", f"steps={steps}")
    eager = {"pets": ["agent.mode=eager"], "loop": ["loop.mode=eager", "imagination.mode=eager"]}.get(algo, ["loop.mode=eager"])
    mbkit.train(algo, *chosen, *eager, f"run_dir={tmp_path / 'eager'}")
    expected = final_state(tmp_path / "eager")
    mbkit.train(algo, *chosen, f"run_dir={tmp_path / 'graphs'}")
    check_close(final_state(tmp_path / "graphs"), expected)
    for checkpoint in sorted((tmp_path / "graphs" / "checkpoint").glob("step-*.pt")):
        if int(checkpoint.stem.split("-")[1]) > halfway:
            checkpoint.unlink()
    torch.rand(7, device="cuda")  # a resumed process has another past
    mbkit.resume(tmp_path / "graphs")
    check_close(final_state(tmp_path / "graphs"), expected)


def check_close(state, expected):
    """Learned parts and random states agree: on the pretended device to the last digit, on a GPU, which may round otherwise, nearly."""
    exact = "pretended_cuda.device" in sys.modules
    for name, part in expected["parts"].items():
        if exact:
            assert same(state["parts"][name], part), name
        else:
            torch.testing.assert_close([*tensors(state["parts"][name])], [*tensors(part)], rtol=1e-2, atol=1e-3)
    assert same(state["random"]["cuda"], expected["random"]["cuda"])
