"""The replay buffer against a plain list of rows: what it stores, returns and saves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from listed_replay import DISCRETE, SPEC, WRITES, numbers_of, rows, written
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.model_buffer import ModelBuffer
from mbkit.replay.n_step import NStep
from mbkit.types import EnvSpec


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), WRITES)
def test_all_returns_the_newest_rows_in_order(capacity: int, script: list[Any]) -> None:
    buffer, listed = written(capacity, script)
    batch = buffer.all()
    assert len(buffer) == len(listed.rows)
    assert numbers_of(batch.obs) == [r["id"] for r in listed.rows]
    expected = rows(*([r[k] for r in listed.rows] for k in ("id", "end"))) if listed.rows else None
    if expected:
        assert all(torch.equal(a, b) for a, b in zip(batch[:4], expected[:4], strict=True))
        assert torch.equal(batch.discount, 1 - expected.terminated.float())
        assert torch.equal(buffer.rows_at(buffer.order()).ended, expected.ended)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), WRITES, WRITES)
def test_state_dict_round_trip_continues_bit_for_bit(capacity: int, before: list[Any], after: list[Any]) -> None:
    whole, _ = written(capacity, before + after)
    first, _ = written(capacity, before)
    second = ReplayBuffer(capacity, SPEC)
    second.extend(rows([77] * min(3, capacity), [0] * min(3, capacity)))  # must not be visible after loading
    data, link = second.data, second.link
    second.load_state_dict(first.state_dict())
    assert second.data is data
    assert second.link is link
    number = sum(len(entries) for entries, _, _ in before)
    for entries, column, masked in after:
        ends, mask = [e for e, _ in entries], torch.tensor([m or not masked for _, m in entries])
        new = rows(list(range(number, number + len(entries))), ends)
        number += len(entries)
        if len(entries) <= capacity:
            second.extend(new, mask if masked else None, column)
    a, b = whole.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    width = len(a.pop("open"))
    assert torch.equal(whole.open, second.open[:width])
    assert (second.open[width:] < 0).all()
    b.pop("open")
    assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_sample_covers_every_stored_row_and_no_other() -> None:
    buffer = ReplayBuffer(6, DISCRETE)
    with pytest.raises(ValueError, match="empty"):
        buffer.sample(1)
    for start in range(0, 8, 2):
        buffer.extend(rows([start, start + 1], [0, 2], DISCRETE))
    torch.manual_seed(0)
    batch = buffer.sample(6000)
    frequency = torch.bincount(batch.obs[:, 0].long(), minlength=8) / 6000
    torch.testing.assert_close(frequency[2:], torch.full((6,), 1 / 6), atol=0.03, rtol=0)
    assert frequency[:2].sum() == 0
    assert batch.action.dtype == torch.int64
    assert torch.equal(batch.action, batch.obs[:, 0].long() % 5)
    assert torch.equal(batch.discount, (batch.obs[:, 0] % 2 == 0).float())


def test_extend_masked_rows_are_never_sampled() -> None:
    buffer = ReplayBuffer(8, SPEC)
    buffer.extend(rows([1, 2], [0, 0]))
    bad = rows([3, 4], [0, 0])._replace(reward=torch.tensor([torch.nan, 40.0]))
    buffer.extend(bad, torch.tensor([False, True]))
    assert all(x.isfinite().all() for x in NStep(buffer, 3, 0.9).sample(64)[:5])
    assert numbers_of(buffer.all().obs) == [1, 2, 4]


def test_size_is_a_tensor_on_the_device() -> None:
    buffer = ReplayBuffer(4, SPEC)
    buffer.extend(rows([1, 2, 3], [0, 0, 0]), torch.tensor([True, False, True]))
    assert isinstance(buffer.size, Tensor)
    assert buffer.size.item() == 2


def test_extend_and_sample_do_not_synchronise_with_the_host() -> None:
    buffer = ReplayBuffer(8, SPEC._replace(device=torch.device("meta")))  # meta tensors have no content: reading any would raise
    new = Experience(*(x.to("meta") for x in rows([1, 2], [0, 2])))
    for mask in (None, torch.ones(2, dtype=torch.bool, device="meta")):
        buffer.extend(new, mask)
        buffer.extend(new, mask, column=3)
    assert buffer.sample(6).obs.shape == NStep(buffer, 3, 0.9).sample(6).obs.shape == (6, 2)


def test_load_own_file_round_trips_and_others_are_refused(tmp_path: Path) -> None:
    buffer, _ = written(5, [([(0, True), (2, True)], None, False)] * 4, DISCRETE)
    buffer.save(tmp_path / "replay.pt")
    loaded = ReplayBuffer.load(tmp_path / "replay.pt")
    assert loaded.spec == DISCRETE
    assert all(torch.equal(a, b) for a, b in zip(loaded.all()[:5], buffer.all()[:5], strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["replay.pt"]
    content = (tmp_path / "replay.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    for name in ("cut.pt", "foreign.pt", "text.pt", "absent.pt"):
        with pytest.raises(UserError, match=name) as caught:
            ReplayBuffer.load(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save({"format": "mbkit replay 1", "capacity": 5}, tmp_path / "partial.pt")
    with pytest.raises(UserError, match=r"partial.pt cannot be read"):
        ReplayBuffer.load(tmp_path / "partial.pt")
    with pytest.raises(UserError, match="capacity 5, but this run expects 6"):
        ReplayBuffer(6, DISCRETE).load_state_dict(buffer.state_dict())
    with pytest.raises(UserError, match="discrete"):
        ReplayBuffer(5, SPEC._replace(action_dim=5)).load_state_dict(buffer.state_dict())


def test_extend_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ReplayBuffer(4, EnvSpec(3, 1, torch.device("cpu"))).extend(rows([1], [0]))
    with pytest.raises(UserError, match="at least 1"):
        ReplayBuffer(0, SPEC)


@pytest.mark.parametrize("capacity", [10**12, 10**18, 10**30])
def test_replay_buffer_capacity_beyond_the_memory_is_refused(capacity: int) -> None:
    with pytest.raises(UserError, match=f"loop.buffer_size={capacity} needs {(capacity + 1) * 56} bytes") as caught:
        ReplayBuffer(capacity, SPEC)
    assert "\n" not in str(caught.value)


def test_replay_buffer_fault_of_the_device_is_not_its_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*args: object, **kwargs: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "empty", fault)
    for make in (lambda: ReplayBuffer(8, SPEC), lambda: ModelBuffer(8, SPEC)):
        with pytest.raises(RuntimeError, match="illegal memory access"):
            make()


def test_replay_buffer_memory_is_taken_as_it_fills() -> None:
    """A million rows of 2 000 observations are 16 GB, of which an empty buffer touches next to nothing."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ReplayBuffer(200_000, SPEC._replace(obs_dim=2000))  # 3.2 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("field", ["obs", "action", "terminated"])
def test_extend_fields_on_different_devices_are_stored(field: str) -> None:
    new = rows([1, 2], [0, 2])._replace(ended=torch.tensor([False, True]))
    moved = {name: getattr(new, name).to("meta") for name in ((field, "ended") if field == "terminated" else (field,))}
    buffer = ReplayBuffer(8, SPEC._replace(device=torch.device("meta")))
    buffer.extend(new._replace(**moved))
    assert buffer.sample(3).obs.shape == (3, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_extend_actions_from_a_gpu_and_observations_from_the_host_are_stored(device: str) -> None:
    buffer, new = ReplayBuffer(8, SPEC._replace(device=torch.device(device))), rows([1, 2], [0, 2])
    buffer.extend(new._replace(action=new.action.cuda()))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(buffer.all()[:4], new[:4], strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_extend_and_sample_captured_in_a_graph_equal_eager_ones() -> None:
    spec = SPEC._replace(device=torch.device("cuda"))
    buffer, eager = ReplayBuffer(16, spec), ReplayBuffer(16, spec)
    static = Experience(*(x.cuda() for x in rows([0, 1, 2], [0, 0, 0])))
    mask = torch.tensor([True, False, True], device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        buffer.extend(static, mask)
        NStep(buffer, 3, 0.9).sample(32)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        buffer.extend(static, mask)
        batch = NStep(buffer, 3, 0.9).sample(32)
    eager.extend(static, mask)
    for step in range(1, 30):
        new = rows([3 * step, 3 * step + 1, 3 * step + 2], [0, 0, 2 * (step % 4 == 0)])
        for field, value in zip(static, new, strict=True):
            field.copy_(value)
        graph.replay()
        eager.extend(static, mask)
    a, b = buffer.state_dict(), eager.state_dict()
    assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
    assert batch.obs[:, 0].min() >= numbers_of(eager.all().obs)[0]


def test_cut_running_episodes_are_not_continued() -> None:
    buffer = ReplayBuffer(8, SPEC)
    buffer.extend(rows([1, 2], [0, 0]))
    buffer.cut()
    buffer.extend(rows([3, 4], [0, 0]))
    buffer.extend(rows([5, 6], [0, 0]))
    assert buffer.link[:6].tolist() == [8, 8, 4, 5, 8, 8]  # 8: no row follows
    assert buffer.origin[:6, 1].tolist() == [1, 1, 1, 1, 0, 0]


SEVERAL = EnvSpec(2, 5, torch.device("cpu"), True, (3, 2))


def several(first: int, m: int) -> Experience:
    """m steps with two discrete actions each."""
    number, never = torch.arange(first, first + m), torch.zeros(m, dtype=torch.bool)
    obs = torch.stack([number, -number], 1).float()
    return Experience(obs, torch.stack([number % 3, number % 2], 1), number.float(), obs + 1, never, never)


@pytest.mark.parametrize("m", [2, 40])  # through NumPy, and scattered
def test_replay_buffer_stores_and_saves_several_discrete_actions(tmp_path: Path, m: int) -> None:
    buffer = ReplayBuffer(100, SEVERAL)
    for first in (0, m):
        buffer.extend(several(first, m))
    buffer.save(tmp_path / "rows.pt")
    for stored in (buffer, ReplayBuffer.load(tmp_path / "rows.pt")):
        assert stored.spec == SEVERAL
        action = stored.all().action
        assert action.dtype == torch.int64
        assert action.tolist() == [[i % 3, i % 2] for i in range(2 * m)]
        assert NStep(stored, 3, 0.9).sample(6).action.shape == (6, 2)


def test_load_state_dict_of_other_parts_is_refused_and_of_none_accepted() -> None:
    state = ReplayBuffer(10, SEVERAL).state_dict()
    with pytest.raises(UserError, match=r"has parts \(3, 2\), but this run expects \(2, 3\)"):
        ReplayBuffer(10, SEVERAL._replace(parts=(2, 3))).load_state_dict(state)
    earlier = ReplayBuffer(10, DISCRETE).state_dict()
    del earlier["parts"]
    ReplayBuffer(10, DISCRETE).load_state_dict(earlier)
    with pytest.raises(UserError, match=r"has parts \(\), but this run expects \(3, 2\)"):
        ReplayBuffer(10, DISCRETE._replace(parts=(3, 2))).load_state_dict(earlier)
