"""One filmed episode, or the reason why there is none."""

from types import SimpleNamespace

import pytest
import torch
from episodes import COUNTING, Still

from mbkit import envs, recording
from mbkit.errors import UserError
from mbkit.run.evaluation import evaluation_seed
from mbkit.run.film import film


def test_film_environment_without_pictures_is_the_reason(tmp_path):
    def make_env(num_envs, seed, render_mode):
        raise UserError("it draws nothing")

    assert film(make_env, lambda env: Still(), tmp_path / "step-1.mp4", 0) == (None, "no video: it draws nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reason", [None, "no renderer"])
def test_film_records_the_first_evaluation_episode_and_leaves_random_numbers_as_they_were(tmp_path, monkeypatch, reason):
    asked, path = [], tmp_path / "step-1.mp4"

    def make_env(num_envs, seed, render_mode):
        asked.append((num_envs, seed, render_mode))
        return envs.make(COUNTING, num_envs=num_envs, seed=seed)

    def record(environment_factory, actor, path, seed):
        torch.rand(5)
        asked.append((environment_factory().num_envs, seed))
        return SimpleNamespace(path=path, reason=reason)

    monkeypatch.setattr(recording, "record_video", record)
    before = torch.get_rng_state()
    assert film(make_env, lambda env: Still(), path, 4) == (path, reason)
    assert asked == [(1, evaluation_seed(4), "rgb_array"), (1, evaluation_seed(4))]
    assert torch.equal(torch.get_rng_state(), before)
