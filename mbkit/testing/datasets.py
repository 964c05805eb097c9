"""The contract of data sets: what learning from recorded rows relies on.

Letters: N rows, E episodes, O observation, A action.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbkit.data import Columns, Dataset, read
from mbkit.data.columns import Array, ends_of, joined
from mbkit.envs import task_knowledge
from mbkit.errors import UserError
from mbkit.testing.common import expect, plain_sentences
from mbkit.types import EnvSpec

MOST_REPEATED = 0.01  # share of rows of continuous numbers that may be copies of others
MOST_AT_REST = 0.5  # share of rows whose successor may be the observation itself
MOST_WRONG = 0.001  # share of rows whose reward or flag may differ from the known one, as at a threshold


def check_dataset(data: Dataset | str | Path, spec: EnvSpec | None = None, **options: Any) -> None:
    """Check that a data set can be learned from.

    Checked: all of `mbkit data inspect`'s (shapes, finite numbers within float32, actions in their box or range, flags on the last row of
    an episode alone, each row's successor the observation of the following one); that observations and actions change; that no episode is
    another's copy, and next to no row of continuous actions; and, where the environment's reward and termination are known functions, that
    rows have them, which shifted columns do not.

    Args:
        data: the data set, or its file or directory.
        spec: dimensions that it must have; None: whatever it has.
        options: of `mbkit.data.read`, for a file that does not say everything itself.

    Raises:
        AssertionError: one sentence with the expectation and the result.
    """
    with plain_sentences():
        if not isinstance(data, Dataset):
            data = read(data, **options)
        elif options:
            raise UserError(f"options of reading, {', '.join(options)}, mean nothing for a data set in memory; expected none")
        rows = joined(list(data.chunks()))
        if spec is not None:
            check_dimensions(data, spec)
        check_motion(data, rows)
        check_actions_vary(data, rows)
        check_episodes_differ(data, rows)
        check_rows_differ(data, rows)
        check_known_functions(data, rows)


def check_dimensions(data: Dataset, spec: EnvSpec) -> None:
    """Check the dimensions against those expected."""
    has = data.spec()
    for what in ("obs_dim", "action_dim", "discrete", "parts"):
        expected, came = getattr(spec, what), getattr(has, what)
        expect(expected == came, f"{data.name}: expected {what}={expected}, came {came}")


def check_motion(data: Dataset, rows: Columns) -> None:
    """Check that the successor is not the observation itself in most rows, as where one column was written twice."""
    rest = (rows.obs == rows.next_obs).all(1)
    share = float(rest.mean())
    expect(
        share <= MOST_AT_REST,
        f"{data.name}: next_obs: expected the observation after the step, came obs itself in {share:.0%} of the rows, first in "
        f"{data.place(int(rest.argmax()))}",
    )


def check_actions_vary(data: Dataset, rows: Columns) -> None:
    """Check that actions are not the same in all rows, of which nothing can be learned about others."""
    if len(rows.reward) > 1:
        first = np.asarray(rows.action)[:1]
        expect(
            bool((rows.action != first).any()),
            f"{data.name}: action: expected actions that differ, came {first[0]} in all {len(rows.reward)} rows",
        )


def check_episodes_differ(data: Dataset, rows: Columns) -> None:
    """Check that no episode of several rows is the copy of an earlier one."""
    table = as_bytes(rows)
    first: dict[tuple[int, bytes], int] = {}
    ends = ends_of(data.lengths)
    for episode, (end, length) in enumerate(zip(ends, data.lengths, strict=True)):
        key = int(length), table[end - length : end].tobytes()
        earlier = first.setdefault(key, episode)
        expect(
            earlier == episode or length == 1,
            f"{data.name}: expected episodes that differ, but episode {episode} is a copy of episode {earlier}",
        )


def check_rows_differ(data: Dataset, rows: Columns) -> None:
    """Check that next to no row of continuous actions is the copy of another."""
    if data.choices or len(rows.reward) < 2:
        return
    _, first, counts = np.unique(as_bytes(rows), axis=0, return_index=True, return_counts=True)
    copies = len(rows.reward) - len(first)
    where = data.place(int(first[counts.argmax()]))
    expect(
        copies <= MOST_REPEATED * len(rows.reward),
        f"{data.name}: expected rows that differ, but {copies} of {len(rows.reward)} are copies of others, most often {where}, "
        f"{counts.max()} times",
    )


def as_bytes(rows: Columns) -> Array:
    """Observation, action and successor of each row as bytes, uint8 [N, ...]."""
    n = len(rows.reward)
    columns = [np.ascontiguousarray(column.reshape(n, -1)) for column in (rows.obs, rows.action, rows.next_obs)]
    return np.concatenate([column.view(np.uint8).reshape(n, -1) for column in columns], 1)


def check_known_functions(data: Dataset, rows: Columns) -> None:
    """Check recorded rewards and terminations against those of the environment, where they are known functions of a row."""
    if data.env is None:
        return
    task = task_knowledge(data.env, data.spec(), data.env_kwargs)
    obs, next_obs = (torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (rows.obs, rows.next_obs))
    action = torch.from_numpy(data.scaled(rows.action))
    if task.reward is not None and data.has_reward:
        known = task.reward(obs, action, next_obs).numpy()
        wrong = np.abs(known - rows.reward) > 1e-3 * (1 + np.abs(rows.reward))
        report(data, wrong, "reward", known, rows.reward)
    if task.termination is not None:
        known = task.termination(obs, action, next_obs).numpy()
        report(data, known != rows.terminated, "terminated", known, rows.terminated)


def report(data: Dataset, wrong: Array, name: str, known: Array, recorded: Array) -> None:
    """Fail where more rows are wrong than rounding explains."""
    row = int(wrong.argmax())
    expect(
        float(wrong.mean()) <= MOST_WRONG,
        f"{data.name}: {name} of {data.place(row)}: expected {known[row]}, which is that of {data.env}, came {recorded[row]}; "
        f"so it is in {wrong.mean():.1%} of the rows",
    )
