"""Model-based learning from a data set: the hooks in their order, identities between whole runs, and every mistake as one sentence."""

from pathlib import Path

import pytest
import torch
from model_based_offline import ADVERSARY, CQL, EPISODES, MODEL, MOREL_SAC, ROLLOUTS, SMALL, random_steps, train
from pendulum_data import pendulum
from recorded import dataset
from resumption import same

from mbkit.data import write
from mbkit.dynamics.ensemble import Ensemble
from mbkit.errors import UserError
from mbkit.imagination.pessimism import Halting, Penalized
from mbkit.loops import Until, Updates
from mbkit.loops.rounds import AdversaryRound, Cloning, EpisodeUpdates, ModelFacts, Rounds
from mbkit.recipes.measures import COMPARES_MEMBERS, MEASURES, possible
from mbkit.recording import read_metrics
from mbkit.run import Run
from mbkit.run.fitting import fit_dynamics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_steps(tmp_path_factory.mktemp("data") / "random.h5")


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every fit of an ensemble."""
    rows, fit = list[int](), Ensemble.fit
    monkeypatch.setattr(Ensemble, "fit", lambda self, data, known=None: rows.append(len(data.obs)) or fit(self, data, known))
    return rows


def agent(run: Run):
    return run.parts.stateful["agent"].state_dict()


# -------------------------------------------------------------------------------------------------------------------- identities
LR = "agent.lr=3e-4"  # not that of the preset of sac on InvertedPendulum-v5
WITHOUT_MODEL = {
    "mopo": ("sac", [LR], []),
    "rambo": ("sac", [LR], []),
    "mobile": ("sac", [LR, "agent.backup_entropy=false"], []),
    "combo": ("cql", ["agent.samples=2"], ["agent.samples=2"]),
    "mopo of td3_bc": ("td3_bc", [], ["agent=td3_bc", "agent.hidden=[8]"]),
}


@pytest.mark.parametrize("case", WITHOUT_MODEL)
def test_real_ratio_1_is_the_agent_alone_and_nothing_is_fitted(case, data, tmp_path, fits):
    alone, options, own = WITHOUT_MODEL[case]
    one = train(alone, data, tmp_path / "one", *options)
    other = train(case.split()[0], data, tmp_path / "other", *own, "imagination.real_ratio=1")
    assert same(agent(one), agent(other))
    assert set(other.parts.stateful) == {"agent"}
    assert other.parts.dynamics is None
    assert not fits
    assert not (tmp_path / "other" / "dynamics.pt").exists()


def test_mve_with_horizon_0_on_data_is_the_agent_alone(data, tmp_path, fits):
    one = train("td3_bc", data, tmp_path / "one")
    other = train("mve", data, tmp_path / "other", "agent=td3_bc", "agent.hidden=[8]", "imagination.horizon=0")
    assert same(agent(one), agent(other))
    assert not fits


NEUTRAL = {
    "mopo, penalty 0": ("mopo", [*ROLLOUTS, "imagination.penalty=0"], []),
    "rambo before its adversary": ("rambo", [*ROLLOUTS, "imagination.real_ratio=0.05"], []),
    "morel that halts nothing": ("morel", [*MOREL_SAC, "imagination.coefficient=1e9", "imagination.bc_updates=0"], []),
    "combo": ("combo", [*ROLLOUTS, "imagination.real_ratio=0.05", "agent.samples=2"], CQL),
}


@pytest.mark.parametrize("case", NEUTRAL)
def test_without_its_pessimism_it_is_the_agent_on_plain_rollouts(case, data, tmp_path, fits):
    """MOPO with measure=none, which stores the model's rollouts as they are: the same updates, and the same model transitions."""
    algo, options, others = NEUTRAL[case]
    plain = train("mopo", data, tmp_path / "plain", *MODEL, *ROLLOUTS, "imagination.measure=none", *others)
    run = train(algo, data, tmp_path / "run", *MODEL, *options)
    assert same(agent(run), agent(plain))
    stored = [each.parts.stateful["model_buffer"].state_dict() for each in (run, plain)]
    assert same(*stored)
    assert len(stored[0]["data"]) > 40  # of two rounds from 20 states, in which random episodes soon end
    assert fits == [150, 150]


def test_mobile_without_penalty_is_its_agent_on_plain_rollouts(data, tmp_path, fits):
    """Of a model that was loaded: mobile makes a new one before its agent, mopo after it, from other random numbers."""
    file = tmp_path / "dynamics.pt"
    fit_dynamics(data, *MODEL, out=file)
    model = [f"dynamics.load={file}", *ROLLOUTS]
    runs = [
        train("mopo", data, tmp_path / "mopo", *model, "imagination.measure=none", "agent.backup_entropy=false"),
        train("mobile", data, tmp_path / "mobile", *model, "imagination.penalty=0"),
        train("mobile", data, tmp_path / "penalised", *model),
    ]
    assert same(agent(runs[0]), agent(runs[1]))
    assert not same(agent(runs[1]), agent(runs[2]))
    assert fits == [150]


PESSIMISTIC = {
    "mopo": ROLLOUTS,
    "rambo": (*ROLLOUTS, *ADVERSARY, "imagination.real_ratio=0.05"),
    "morel": (*MOREL_SAC, "imagination.coefficient=0.5", "imagination.bc_updates=0"),
}


@pytest.mark.parametrize("algo", PESSIMISTIC)
def test_with_its_pessimism_it_is_not(algo, data, tmp_path):
    plain = train("mopo", data, tmp_path / "plain", *MODEL, *ROLLOUTS, "imagination.measure=none")
    run = train(algo, data, tmp_path / "run", *MODEL, *PESSIMISTIC[algo])
    assert not same(agent(run), agent(plain))


@pytest.mark.parametrize("learner", ["sac", "td3_bc", "iql", "cql"])
@pytest.mark.parametrize("measure", MEASURES)
def test_every_measure_penalises_the_rollouts_of_every_agent(measure, learner, data, tmp_path):
    options = [f"agent={learner}", "agent.hidden=[8]", *(["agent.samples=2"] if learner == "cql" else []), f"imagination.measure={measure}"]
    run = train("mopo", data, tmp_path / "run", *MODEL, *ROLLOUTS, *options, "steps=4")
    (rollouts,) = next(hook for hook in run.parts.hooks if isinstance(hook, Rounds)).hooks
    assert isinstance(rollouts.model, Penalized)
    assert rollouts.model.measure is MEASURES[measure]
    assert len(run.parts.stateful["model_buffer"])


# ------------------------------------------------------------------------------------------------------------------------ wiring
def hooks(run: Run) -> list[type]:
    return [type(hook) for hook in run.parts.hooks]


def test_hooks_stand_in_the_order_of_the_algorithm(data, tmp_path):
    run = train("mopo", data, tmp_path / "mopo", *MODEL, *ROLLOUTS)
    assert hooks(run)[:3] == [ModelFacts, Rounds, Updates]
    assert set(run.parts.stateful) == {"agent", "dynamics", "model_buffer"}
    run = train("rambo", data, tmp_path / "rambo", *MODEL, *SMALL["rambo"], "imagination.bc_updates=5")
    _, cloning, learning = run.parts.hooks
    assert isinstance(cloning.before[0], Cloning)
    assert [type(hook) for hook in learning.after][:3] == [Rounds, Rounds, Updates]
    trains, rolls = learning.after[:2]
    assert isinstance(trains.hooks[0], AdversaryRound)
    assert (trains.begin, trains.every, rolls.begin, rolls.every) == (15, 10, 5, 10)
    assert set(run.parts.stateful) == {"agent", "dynamics", "adversary", "cloning", "model_buffer"}
    run = train("morel", data, tmp_path / "morel", *MODEL, *EPISODES, "imagination.bc_updates=5")
    assert hooks(run) == [ModelFacts, Until, Until]
    assert isinstance(run.parts.hooks[2].after[0], EpisodeUpdates)
    assert set(run.parts.stateful) == {"agent", "dynamics", "halting", "cloning"}


def test_a_run_records_its_fit_and_its_rounds(data, tmp_path):
    train("rambo", data, tmp_path / "run", *MODEL, *SMALL["rambo"], "steps=30")
    rows = read_metrics(tmp_path / "run")
    where = {
        name: [int(row["step"]) for row in rows if name in row] for name in ("model/holdout_mse", "imagination/rows", "adversary/loss")
    }
    assert where == {"model/holdout_mse": [1], "imagination/rows": [1, 11, 21], "adversary/loss": [11, 21]}


@pytest.mark.parametrize("options", [EPISODES, MOREL_SAC])
def test_a_run_that_clones_from_end_to_end_says_so(options, data, tmp_path):
    for updates, steps, alone in ((5, 5, True), (4, 5, False)):
        folder = tmp_path / str(updates)
        run = train("morel", data, folder, *MODEL, *options, f"imagination.bc_updates={updates}", f"steps={steps}")
        assert ("The policy was only cloned: all 5 updates were those of imagination.bc_updates." in run.summary()["notes"]) == alone


def test_halting_is_set_by_the_recorded_rows(data, tmp_path):
    run = train("morel", data, tmp_path / "run", *MODEL, *EPISODES, "imagination.coefficient=0.5", "imagination.kappa=2")
    halting, rows, model = run.parts.stateful["halting"], run.parts.recorded.all(), run.parts.dynamics
    assert isinstance(halting, Halting)
    with torch.no_grad():
        mean = model.network.predict_targets(rows.obs, rows.action).mean
    largest = max(float((a - b).norm(dim=-1).max()) for a in mean for b in mean)
    threshold, reward = halting.limits.tolist()
    assert threshold == pytest.approx(0.5 * largest, rel=1e-5)
    assert reward == pytest.approx((float(rows.reward.min()) - 2) / (1 - 0.99), rel=1e-5)


def test_low_values_are_no_sign_of_divergence_where_rewards_are_penalised(data, tmp_path):
    options = [*ROLLOUTS, "imagination.penalty=1e4", "agent.lr=0.1", "steps=60"]
    run = train("mopo", data, tmp_path / "run", *MODEL, *options)
    updates = next(hook for hook in run.parts.hooks if isinstance(hook, Updates))
    assert updates.pessimistic
    assert read_metrics(tmp_path / "run")[-1]["critic/q"] < -200  # beyond twice the largest return that recorded rewards allow
    assert not [note for note in run.summary()["notes"] if "diverge" in note]


# ---------------------------------------------------------------------------------------------------------------------- measures
def test_measures_that_a_model_can_give():
    assert possible(1, False) == []
    assert possible(1, True) == ["ensemble_std", "max_aleatoric"]
    assert possible(3, False) == ["disagreement", "distance_from_mean", "ensemble_std"]
    assert set(possible(3, True)) == set(MEASURES)


ONE = ("dynamics.members=1", "dynamics.elites=1")


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("kind", ["one member", "deterministic", "one deterministic", "local_linear"])
@pytest.mark.parametrize("algo", ["mopo", "morel"])
def test_measures_that_a_model_cannot_give_are_refused(algo, kind, measure, data, tmp_path):
    options = {
        "one member": [*MODEL, *ONE],
        "deterministic": [*MODEL, "dynamics.probabilistic=false"],
        "one deterministic": [*MODEL, *ONE, "dynamics.probabilistic=false"],
        "local_linear": ["dynamics=local_linear"],
    }[kind]
    able = {"one member": possible(1, True), "deterministic": possible(3, False)}.get(kind, [])
    arguments = [algo, data, tmp_path / "run", *options, *SMALL[algo], f"imagination.measure={measure}", "steps=2"]
    if measure in able:
        assert train(*arguments).loop.step == 2
        return
    sentence = rf"imagination\.measure={measure} (cannot be measured on a model of [13] (deterministic )?member|is measured on the members)"
    if (algo, kind) == ("morel", "local_linear"):
        sentence = "morel learns in an ensemble; expected dynamics=ensemble, came dynamics=local_linear"
    refused(sentence, *arguments)


def refused(sentence: str, algo: str, data: Path | None, folder: Path, *options: str) -> None:
    """The run is refused in one sentence, and nothing is written."""
    with pytest.raises(UserError, match=sentence) as caught:
        train(algo, data, folder, *options)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


# ---------------------------------------------------------------------------------------------------------------------- mistakes
MISTAKES = {
    "one elite": ("mobile", ["dynamics.elites=1"], "imagination.penalty of mobile compares elites; expected dynamics.elites of at least 2"),
    "no density": (
        "rambo",
        ["dynamics.probabilistic=false"],
        "rambo trains by the density .* expected dynamics.probabilistic=true, came false",
    ),
    "no ensemble": (
        "rambo",
        ["dynamics=local_linear"],
        "rambo learns in an ensemble; expected dynamics=ensemble, came dynamics=local_linear",
    ),
    "the simulator": ("mopo", ["dynamics=mujoco"], "mopo needs a model that can start from any state"),
    "halts everything": ("morel", ["imagination.coefficient=1e-6"], "imagination.coefficient=1e-06 halts every rollout at its first step"),
    "returns": ("mopo", ["agent=bc", "agent.condition=return"], "agent=bc learns from what follows each recorded row"),
    "no policy": ("morel", ["agent=naf", "imagination.bc_updates=3"], "imagination.bc_updates clones a policy, but NAF has none"),
    "no recorded row": ("combo", ["imagination.real_ratio=0.01"], "real_ratio=0.01 of loop.batch_size=20 rows leaves no recorded one"),
    "no real ratio": ("combo", ["imagination.real_ratio=0"], "real_ratio=0 of loop.batch_size=20 .* agent=cql pushes the values"),
    "none for cql": ("mopo", [*CQL, "imagination.real_ratio=0"], "real_ratio=0 of loop.batch_size=20 .* agent=cql pushes the values"),
    "no model row": ("mopo", ["imagination.real_ratio=0.99"], "real_ratio=0.99 of loop.batch_size=20 rows leaves none to the model"),
    "not conservative": ("combo", ["agent=sac"], "agent=sac does not push values of recorded rows up, as combo does"),
    "own targets": ("mobile", ["agent=iql"], "agent 'iql' computes its targets itself and ignores the target function of mobile"),
    "no targets": ("mobile", ["agent=awr"], "agent 'awr' lends no backup_action and backup_q to its targets, which mobile needs"),
    "no critics": ("rambo", ["agent=bc"], "agent 'bc' lends no backup_action and backup_q to its targets, which rambo needs"),
    "other episodes": (
        "morel",
        ["agent=ppo"],
        "agent 'ppo' learns from trajectories .*; of such agents morel takes npg alone, else e.g. sac",
    ),
    "discrete": ("mopo", ["agent=dqn"], "dqn needs discrete actions"),
    "memory": ("mopo", ["imagination.memory_gb=1e-7"], "imagination.starts ask for 20 start states at once"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_every_mistake_is_one_sentence_and_nothing_is_written(case, data, tmp_path):
    algo, options, sentence = MISTAKES[case]
    group = "dynamics" if options[0].startswith("dynamics=") else "agent" if options[0].startswith("agent=") else "none"
    small = [*MODEL, *(EPISODES if algo == "morel" and group == "none" else ROLLOUTS if algo == "morel" else SMALL[algo])]
    small = [option for option in small if not option.startswith(f"{group}.")]
    refused(sentence, algo, data, tmp_path / "run", *small, *options)


@pytest.mark.parametrize("agent", ["iql", "xql", "rebrac", "one_step", "kl_constrained"])
def test_mve_names_agents_that_ignore_its_targets(agent, data, tmp_path):
    sentence = f"agent '{agent}' computes its targets itself and ignores the target function of mve"
    refused(sentence, "mve", data, tmp_path / "run", *MODEL, f"agent={agent}", "agent.hidden=[8]")


def test_mve_takes_kl_constrained_critics_of_its_policy(data, tmp_path):
    options = ["agent=kl_constrained", "agent.hidden=[8]", "agent.critic=q_pi", "imagination.horizon=2", "steps=2"]
    assert train("mve", data, tmp_path / "run", *MODEL, *options).loop.step == 2


@pytest.mark.parametrize("algo", SMALL)
def test_data_without_rewards_are_refused(algo, tmp_path):
    mute = write(dataset([20, 30], has_reward=False), tmp_path / "mute.h5")
    refused("has no rewards", algo, mute, tmp_path / "run", "env=none", *MODEL, *SMALL[algo])


def test_cloning_needs_no_rewards(tmp_path):
    mute = write(dataset([20, 30], has_reward=False), tmp_path / "mute.h5")
    assert train("bc", mute, tmp_path / "run", "env=none").loop.step == 20
    refused("has no rewards, which bc learns from", "bc", mute, tmp_path / "no", "env=none", "agent.condition=return")


@pytest.mark.parametrize("algo", SMALL)
def test_without_data_they_are_refused(algo, tmp_path):
    refused("data=FILE is missing", algo, None, tmp_path / "run", "env=none")


def test_a_data_set_of_other_dimensions_is_learned_from_without_an_environment(tmp_path):
    run = train(
        "combo", pendulum(tmp_path / "pendulum.h5"), tmp_path / "run", *MODEL, "env=none", *SMALL["combo"], "dynamics.termination=learned"
    )
    assert run.parts.dynamics.network.learns_termination
    assert run.parts.spec.obs_dim == 3


def test_discrete_actions(tmp_path):
    rows = write(dataset([9, 12, 30], choices=4), tmp_path / "discrete.h5")
    common = ["env=none", *MODEL, *ROLLOUTS, "dynamics.termination=never"]
    for algo, agent in (("combo", "cql_discrete"), ("mopo", "dqn"), ("mobile", "double_dqn"), ("rambo", "dqn")):
        options = [f"agent={agent}", "agent.hidden=[8]", *(ADVERSARY if algo == "rambo" else ())]
        assert train(algo, rows, tmp_path / algo, *common, *options).loop.step == 20
    refused("cql_discrete does not push", "combo", rows, tmp_path / "no", *common, "agent=cql_discrete", "agent.loss=cross_entropy")
    episodes = ["env=none", *MODEL, *EPISODES, "dynamics.termination=never", "imagination.bc_updates=10"]
    assert train("morel", rows, tmp_path / "morel", *episodes).loop.step == 20


def test_measures_that_compare_members_are_those_that_vanish_where_these_agree():
    assert set(COMPARES_MEMBERS) < set(MEASURES)
