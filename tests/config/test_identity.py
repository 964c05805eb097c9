"""Which options may differ between a run and its resumption, and between the runs of a group."""

from pathlib import Path

import pytest

from mbkit.config import compose
from mbkit.config.identity import INCIDENTAL, check_same, flatten, group_identity, run_identity
from mbkit.errors import UserError


def test_flatten_joins_keys_by_dots():
    assert flatten({"a": 1, "b": {"c": [2], "d": {"e": None}}}) == {"a": 1, "b.c": [2], "b.d.e": None}


def test_group_identity_is_the_same_for_seeds_and_incidental_options():
    base = group_identity(compose("sac", ["seed=1"]).to_dict())
    for option in (
        "seed=2",
        "steps=7",
        "threads=1",
        "tensorboard=true",
        "precision=high",
        "run_dir=x",
        "eval.every=9",
        "checkpoint.keep=all",
    ):
        assert group_identity(compose("sac", ["seed=1", option]).to_dict()) == base, option
    assert group_identity(compose("sac", ["agent.lr=1"]).to_dict()) != base


def test_run_identity_keeps_the_seed_and_lets_incidental_options_go():
    base = run_identity(compose("sac").to_dict())
    assert "seed" in base
    assert not any(key.split(".")[0] in INCIDENTAL for key in base)
    assert "dynamics.load" not in run_identity(compose("mbpo", ["dynamics.load=x.pt"]).to_dict())


def test_check_same_names_the_first_option_that_differs():
    check_same({"a": 1}, {"a": 1}, Path("run"))
    with pytest.raises(UserError, match=r"run: its config.yaml has b=2, but its checkpoint is of a run with b=3"):
        check_same({"a": 1, "b": 2}, {"a": 1, "b": 3}, Path("run"))
    with pytest.raises(UserError, match="c=None, but its checkpoint is of a run with c=4"):
        check_same({"a": 1}, {"a": 1, "c": 4}, Path("run"))
