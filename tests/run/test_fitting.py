"""`mbkit dynamics fit`: a model from data alone, for consumers that know the reward and for those that learn it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import dataset

import mbkit
from mbkit.data import Columns, Dataset, write
from mbkit.dynamics import files
from mbkit.dynamics.ensemble import Ensemble, EnsembleConfig
from mbkit.errors import UserError
from mbkit.run.fitting import fit_dynamics
from mbkit.types import EnvSpec, TaskKnowledge, Transition

SMALL = ("dynamics.hidden=[16]", "dynamics.members=3", "dynamics.elites=2", "dynamics.max_epochs=3")
CPU = torch.device("cpu")


def pendulum(path: Path, episodes: int = 8) -> Path:
    """Linear dynamics in the dimensions of InvertedPendulum-v5, whose reward is the action's square."""
    draw, parts = np.random.default_rng(0), []
    for i in range(episodes):
        obs, action = draw.normal(size=(41, 4)), draw.uniform(-3, 3, (40, 1))
        for t in range(40):
            obs[t + 1] = 0.9 * obs[t] + 0.1 * action[t]
        parts.append(Columns(obs[:-1], action, action[:, 0] ** 2, obs[1:], *(np.arange(40) == n for n in (99, 39)), np.full(40, i)))
    columns = Columns(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return write(Dataset.of(columns, env="InvertedPendulum-v5", action_low=[-3], action_high=[3]), path)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pendulum(tmp_path_factory.mktemp("data") / "linear.h5")


def test_a_fit_beats_no_change_and_tells_what_it_is_of(file: Path, tmp_path: Path) -> None:
    done = fit_dynamics(
        file, *SMALL[:-1], "dynamics.max_epochs=60", "dynamics.batch=32", "dynamics.lr=3e-3", "seed=1", out=tmp_path / "dynamics.pt"
    )
    assert done.rows == 320
    assert done.metrics["model/holdout_error"] < 0.7
    content = files.read(tmp_path / "dynamics.pt")
    assert content["fits"]["reward"] == "learned"
    units = {"action_low": [-3.0], "action_high": [3.0]}
    assert content["meta"] == {"env": "InvertedPendulum-v5", "steps": 320, "data": mbkit.data.read(file).sha256, **units}


def test_the_same_seed_gives_the_same_model(file: Path) -> None:
    one, two = (fit_dynamics(file, *SMALL, seed=3).model.network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("probabilistic", [True, False])
@pytest.mark.parametrize("termination", ["never", "learned"])
def test_a_consumer_that_knows_the_reward_ignores_the_learned_one(probabilistic: bool, termination: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec, draw = EnvSpec(3, 2, CPU), torch.randn(60, 9)
    cfg = EnsembleConfig(members=3, elites=2, hidden=(8, 8), probabilistic=probabilistic, termination=termination, max_epochs=2)
    model = Ensemble(spec, cfg)
    model.fit(Transition(draw[:, :3], draw[:, 3:5].tanh(), draw[:, 5], draw[:, 6:], (draw[:, 5] > -1).float()))
    model.save(tmp_path / "dynamics.pt")
    knows = TaskKnowledge(reward=lambda obs, action, next_obs: next_obs[..., 0])
    other = Ensemble(spec, EnsembleConfig(load=str(tmp_path / "dynamics.pt"), termination=termination), knows)
    obs, action = torch.randn(5, 3), torch.rand(5, 2) * 2 - 1
    for ours, theirs in zip(other.predict(obs, action), model.predict(obs, action), strict=True):
        assert torch.allclose(ours, theirs[..., :3], atol=1e-6)
    assert torch.equal(other.step(obs, action).reward, other.step(obs, action).obs[:, 0]) or probabilistic or termination == "learned"
    if termination == "learned":
        logits = [m.network.split(m.network.net(m.network.inputs(m.network.encode(obs, action))))[2] for m in (other, model)]
        assert torch.allclose(*logits, atol=1e-6)


def test_one_file_serves_pets_that_knows_the_reward_and_mbpo_that_learns_it(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "dynamics.pt"
    fit_dynamics(file, *SMALL, out=path)
    before = path.read_bytes()
    common = ["env=InvertedPendulum-v5", f"dynamics.load={path}", "threads=1", "eval.episodes=1", "eval.max_steps=5", "eval.video=false"]
    plans = ["planner.candidates=8", "planner.elites=2", "planner.iterations=1", "agent.horizon=2", "agent.particles=2"]
    pets = mbkit.train("pets", *common, *plans, "steps=4", "loop.fit=false", "loop.warmup_steps=2", f"run_dir={tmp_path / 'pets'}")
    assert pets.parts.dynamics.task.reward is not None
    agent = ["agent.hidden=[8]", "loop.batch_size=8", "imagination.memory_gb=0.01"]
    mbpo = mbkit.train("mbpo", *common, *agent, "steps=6", "loop.fit=false", "loop.warmup_steps=4", f"run_dir={tmp_path / 'mbpo'}")
    assert mbpo.parts.dynamics.task.reward is None
    assert path.read_bytes() == before


def test_terminal_rows_without_a_true_successor_are_left_out(tmp_path: Path) -> None:
    columns = dataset([4, 3, 5, 2]).columns()  # episodes 0 and 2 terminate, 1 carries both flags
    next_obs = columns.next_obs.copy()
    next_obs[3] = next_obs[11] = 0  # as D4RL has it
    next_obs[6] = columns.obs[7]  # as its stock loader has it
    data = Dataset.of(columns._replace(next_obs=next_obs), action_low=[-1, -2], action_high=[1, 2])
    done = fit_dynamics(data, *SMALL, out=tmp_path / "dynamics.pt")
    assert (done.rows, files.read(tmp_path / "dynamics.pt")["fitted"]["rows"]) == (11, 11)
    assert any("Terminal rows without a true successor" in note and note.endswith(": 3.") for note in done.notes)
    learned = fit_dynamics(data, *SMALL, "dynamics.termination=learned").model
    assert learned.network.learns_termination
    assert learned.fitted["rows"] == 11


def test_terminations_that_no_known_function_explains_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data set: 3 of its rows end an episode, but no termination function of its task is known"):
        fit_dynamics(dataset([4, 3, 5, 2]), *SMALL, out=tmp_path / "dynamics.pt")
    assert not (tmp_path / "dynamics.pt").exists()
    for termination in ("never", "learned"):
        assert fit_dynamics(dataset([4, 3, 5, 2]), *SMALL, f"dynamics.termination={termination}").rows == 14


def test_a_log_without_rewards_fits_observations_alone(tmp_path: Path) -> None:
    path = write(dataset([20, 30], has_reward=False), tmp_path / "log.h5")
    done = fit_dynamics(path, *SMALL, "dynamics.termination=never", out=tmp_path / "dynamics.pt")
    assert done.model.network.output_dim == 2
    assert files.read(tmp_path / "dynamics.pt")["fits"]["reward"] == "known"


REFUSED = {
    "planner.candidates=3": "dynamics fit takes dynamics",
    "dynamics=mujoco": "dynamics fit fits an ensemble; came dynamics=mujoco",
    "dynamics.reward=tasks:height": "a fit learns the recorded reward",
    "dynamics.membres=3": "unknown option dynamics.membres; did you mean",
    "seed=x": "seed='x' does not fit: expected int",
    "device=tpu": "device='tpu': expected cpu or cuda",
}


@pytest.mark.parametrize("option", REFUSED)
def test_fit_refuses_what_it_does_not_take(option: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=REFUSED[option]):
        fit_dynamics(file, option, out=tmp_path / "dynamics.pt")
    assert not (tmp_path / "dynamics.pt").exists()


def test_a_consumer_that_must_learn_the_reward_refuses_a_file_without(tmp_path: Path) -> None:
    data = dataset([20, 30], has_reward=False)
    fit_dynamics(data, *SMALL, "dynamics.termination=never", out=tmp_path / "dynamics.pt")
    with pytest.raises(UserError, match="reward must be learned, the file has known"):
        Ensemble(data.spec(), EnsembleConfig(load=str(tmp_path / "dynamics.pt")))
