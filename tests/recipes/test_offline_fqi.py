"""Fitted Q-iteration on a data set, by the whole run: on one-hot states it is the tabular one on the same rows."""

from pathlib import Path

import numpy as np
import torch

import mbkit
from mbkit.data import Columns, Dataset, write
from mbkit.run import Run
from mbkit.tabular.environments import Episodes, garnet
from mbkit.tabular.mdp import MDP
from mbkit.tabular.offline import counts, fitted_q_iteration
from mbkit.tabular.sampling import sample_rows

S, A, GAMMA = 6, 2, 0.6
TABLE = ("agent.hidden=[]", "agent.minibatch=0", "agent.lr=0.03", "agent.max_grad_norm=1e9", "agent.gradient_steps=300")


def episodes(successors: int, seed: int) -> Episodes:
    """150 rows of a random MDP whose last state is terminal, every pair of the others among them."""
    base = garnet(S, A, successors, seed=seed)
    P, R = base.P.copy(), base.R.copy()
    P[S - 1], R[S - 1] = np.eye(S)[S - 1], 0.0
    rows = sample_rows(MDP(P, R, base.mu0, GAMMA, np.arange(S) == S - 1), np.random.default_rng(0), 150)
    assert (counts(rows, S, A)[: S - 1] > 0).all()
    return rows


def train(rows: Episodes, folder: Path, steps: int, batch: int) -> Run:
    """A run on the rows as a data set of one-hot observations, each row an episode of its own."""
    eye, terminated = np.eye(S), rows.discount == 0
    columns = Columns(eye[rows.state], rows.action, rows.reward, eye[rows.next_state], terminated, ~terminated, np.arange(len(rows.state)))
    file = write(Dataset.of(columns, choices=A, start=0), folder / "rows.h5")
    options = (f"data={file}", f"run_dir={folder / 'run'}", f"gamma={GAMMA}", f"steps={steps}", f"loop.batch_size={batch}", "threads=1")
    return mbkit.train("fqi", *TABLE, *options)


def learned(agent: torch.nn.Module) -> np.ndarray:
    """Q of the states that have data, [S - 1, A]."""
    q: np.ndarray = agent.q(torch.eye(S))[0, : S - 1].detach().numpy()
    return q


def test_a_run_of_k_updates_is_k_iterations_where_nothing_is_random(tmp_path: Path) -> None:
    """Successors and rewards are functions of the pair, so that it does not matter how often a batch draws it."""
    rows = episodes(successors=1, seed=5)
    run = train(rows, tmp_path, steps=12, batch=512)
    agent = mbkit.load(run.path).agent
    exact = fitted_q_iteration(rows, S, A, GAMMA, 12)[: S - 1]
    start = GAMMA**12 / (1 - GAMMA)  # the networks do not begin at 0
    assert np.abs(learned(agent) - exact).max() < start + 2e-3
    assert agent.act(torch.eye(S)[:-1], explore=False).tolist() == exact.argmax(1).tolist()


def test_updates_on_all_rows_of_the_run_are_the_tabular_iterations(tmp_path: Path) -> None:
    rows = episodes(successors=3, seed=2)
    run = train(rows, tmp_path, steps=1, batch=256)
    agent, data = run.agent, run.parts.recorded.all()
    with torch.no_grad():
        for p in [*agent.q.parameters(), *agent.target_q.parameters()]:
            p.zero_()
    for k in range(1, 6):
        agent.update(data)
        exact = fitted_q_iteration(rows, S, A, GAMMA, k)[: S - 1]
        assert np.abs(learned(agent) - exact).max() < 2e-3
