"""The replay against a plain list of rows: what is kept, what follows what, and what a batch is made of."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mbkit.errors import UserError
from mbkit.replay.buffer import Experience, ReplayBuffer
from mbkit.replay.mixture import Mixture, counts
from mbkit.replay.n_step import NStep
from mbkit.replay.windows import episodes, windows
from mbkit.types import EnvSpec, Transition

SPEC = EnvSpec(2, 1, torch.device("cpu"))
DISCRETE = EnvSpec(2, 5, torch.device("cpu"), discrete=True)


def rows(ids: list[int], ends: list[int], spec: EnvSpec = SPEC) -> Experience:
    """Experience told apart by their number; an end is 0 none, 1 truncated, 2 terminated."""
    number, end = torch.tensor(ids, dtype=torch.float32), torch.tensor(ends)
    action = number.long() % 5 if spec.discrete else number[:, None] / 1000
    obs = torch.stack([number, -number], 1)
    return Experience(obs, action, number * 10, obs + 0.5, end == 2, end > 0)


class Listed:
    """What the buffer should do, with a list of dicts: `parent` is the number of the row before in the same episode."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.rows, self.last = capacity, [], {}

    def extend(self, ids: list[int], ends: list[int], mask: list[bool], column: int | None) -> None:
        for i, (number, end, keep) in enumerate(zip(ids, ends, mask, strict=True)):
            c = i if column is None else column
            if keep:
                self.rows.append({"id": number, "end": end, "column": c, "parent": self.last.get(c)})
            self.last[c] = number if keep and not end else None
        self.rows = self.rows[-self.capacity :]

    def child(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return next((r for r in self.rows if r["parent"] == row["id"]), None)

    def chain(self, row: dict[str, Any], length: int) -> list[dict[str, Any]]:
        out = [row]
        while len(out) < length and (following := self.child(out[-1])) is not None:
            out.append(following)
        return out


writes = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([True, True, True, False])), min_size=1, max_size=4),
        st.one_of(st.none(), st.integers(0, 4)),
        st.booleans(),
    ),
    max_size=14,
)


def written(capacity: int, script: list[Any], spec: EnvSpec = SPEC) -> tuple[ReplayBuffer, Listed]:
    """Both after the same writes."""
    buffer, listed, number = ReplayBuffer(capacity, spec), Listed(capacity), 0
    for entries, column, masked in script:
        ids = list(range(number, number + len(entries)))
        number += len(entries)
        ends, mask = [e for e, _ in entries], [m or not masked for _, m in entries]
        if len(ids) > capacity:
            with pytest.raises(UserError, match=f"holds {capacity} rows, but {len(ids)}"):
                buffer.extend(rows(ids, ends, spec))
            continue
        buffer.extend(rows(ids, ends, spec), torch.tensor(mask) if masked else None, column)
        listed.extend(ids, ends, mask, column)
    return buffer, listed


def ids(obs: Tensor) -> Any:
    return obs[..., 0].long().tolist()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), writes)
def test_rows_are_the_newest_in_order(capacity: int, script: list[Any]) -> None:
    buffer, listed = written(capacity, script)
    batch = buffer.all()
    assert len(buffer) == len(listed.rows)
    assert ids(batch.obs) == [r["id"] for r in listed.rows]
    expected = rows(*([r[k] for r in listed.rows] for k in ("id", "end"))) if listed.rows else None
    if expected:
        assert all(torch.equal(a, b) for a, b in zip(batch[:4], expected[:4], strict=True))
        assert torch.equal(batch.discount, 1 - expected.terminated.float())
        assert torch.equal(buffer.rows_at(buffer.order()).ended, expected.ended)


@settings(max_examples=100, deadline=None)
@given(capacity=st.integers(4, 12), script=writes)
def test_writing_in_place_is_what_the_device_does(capacity: int, script: list[Any]) -> None:
    """Experience of all columns on the host are written by NumPy; a device scatters them. Every tensor must be the same."""
    host, device, number = ReplayBuffer(capacity, SPEC), ReplayBuffer(capacity, SPEC), 0
    device._extend_in_place = lambda rows: False  # type: ignore[method-assign]
    for steps, column, masked in script:
        batch = rows(list(range(number, number + len(steps))), [end for end, _ in steps])
        mask = torch.tensor([keep for _, keep in steps]) if masked else None
        number += len(steps)
        for buffer in (host, device):
            buffer.extend(batch, mask, column)
    for name, value in host.state_dict().items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(device.state_dict()[name])), name


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), writes, st.integers(1, 5))
def test_n_step_sums(capacity: int, script: list[Any], steps: int) -> None:
    buffer, listed = written(capacity, script)
    batch = NStep(buffer, steps, 0.9).at(buffer.order())
    for i, row in enumerate(listed.rows):
        chain = listed.chain(row, steps)
        k = len(chain)
        assert batch.reward[i].item() == pytest.approx(sum(0.9**j * 10 * r["id"] for j, r in enumerate(chain)), rel=1e-5)
        assert batch.discount[i].item() == pytest.approx(0.9 ** (k - 1) * (chain[-1]["end"] != 2))
        assert batch.next_obs[i, 0].item() == chain[-1]["id"] + 0.5
        assert batch.obs[i, 0].item() == row["id"]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), writes, st.integers(1, 5), st.booleans())
def test_a_bonus_is_paid_behind_the_first_step(capacity: int, script: list[Any], steps: int, discrete: bool) -> None:
    """r_0 + sum_{j >= 1} 0.9^j (r_j + bonus(s_j, a_j)) along each row's own chain; what ends it and how it is discounted stays."""
    spec = DISCRETE if discrete else SPEC
    buffer, listed = written(capacity, script, spec)
    plain = NStep(buffer, steps, 0.9).at(buffer.order())
    batch = NStep(buffer, steps, 0.9, lambda obs, action: 100 + obs[:, 0] + action.reshape(-1)).at(buffer.order())
    assert batch.reward.shape == plain.reward.shape
    for i, row in enumerate(listed.rows):
        chain = [r["id"] for r in listed.chain(row, steps)]
        paid = [100 + n + (n % 5 if discrete else n / 1000) for n in chain]
        expected = 10 * chain[0] + sum(0.9**j * (10 * n + paid[j]) for j, n in enumerate(chain) if j)
        assert batch.reward[i].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(batch.discount, plain.discount)
    assert torch.equal(batch.next_obs, plain.next_obs)


def test_no_bonus_is_asked_for_rows_that_are_none() -> None:
    """Whatever lies in the trash row behind the ring never reaches a policy: choices there need not be choices."""
    buffer = ReplayBuffer(8, DISCRETE)
    buffer.extend(rows([1, 2], [0, 0], DISCRETE))
    buffer.extend(rows([3, 4], [0, 0], DISCRETE)._replace(action=torch.tensor([77, 4])), torch.tensor([False, True]))

    def bonus(obs: Tensor, action: Tensor) -> Tensor:
        assert (action < 5).all()
        return action.float()

    assert NStep(buffer, 4, 0.9, bonus).sample(64).reward.isfinite().all()


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), writes, st.integers(1, 4))
def test_windows_are_all_the_unbroken_stretches(capacity: int, script: list[Any], length: int) -> None:
    buffer, listed = written(capacity, script)
    chains = [c for row in listed.rows if len(c := listed.chain(row, length)) == length]
    stretches = windows(buffer, length)
    assert stretches.obs.shape == (len(chains), length + 1, 2)
    assert stretches.action.shape == (len(chains), length, 1)
    assert ids(stretches.obs[:, :-1]) == [[r["id"] for r in c] for c in chains]
    assert stretches.obs[:, -1, 0].tolist() == [c[-1]["id"] + 0.5 for c in chains]
    assert stretches.reward.tolist() == [[10.0 * r["id"] for r in c] for c in chains]
    few = windows(buffer, length, limit=2)
    assert len(few.obs) == min(2, len(chains))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 16), writes)
def test_trajectories_are_the_whole_episodes(capacity: int, script: list[Any]) -> None:
    buffer, listed = written(capacity, script)
    starts = sorted((r for r in listed.rows if r["parent"] is None), key=lambda r: r["column"])
    expected = [c for row in starts if (c := listed.chain(row, 10**6))[-1]["end"]]
    whole = episodes(buffer)
    assert [ids(e.obs) for e in whole] == [[r["id"] for r in c] for c in expected]
    assert [e.terminated.tolist() for e in whole] == [[r["end"] == 2 for r in c] for c in expected]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), writes, writes)
def test_a_saved_buffer_goes_on_bit_for_bit(capacity: int, before: list[Any], after: list[Any]) -> None:
    whole, _ = written(capacity, before + after)
    first, _ = written(capacity, before)
    second = ReplayBuffer(capacity, SPEC)
    second.extend(rows([77] * min(3, capacity), [0] * min(3, capacity)))  # must leave no trace
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


def test_sample_draws_every_row_and_only_those() -> None:
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


def test_masked_garbage_never_reaches_a_batch() -> None:
    buffer = ReplayBuffer(8, SPEC)
    buffer.extend(rows([1, 2], [0, 0]))
    bad = rows([3, 4], [0, 0])._replace(reward=torch.tensor([torch.nan, 40.0]))
    buffer.extend(bad, torch.tensor([False, True]))
    assert all(x.isfinite().all() for x in NStep(buffer, 3, 0.9).sample(64))
    assert ids(buffer.all().obs) == [1, 2, 4]


def test_size_is_a_tensor_on_the_device() -> None:
    buffer = ReplayBuffer(4, SPEC)
    buffer.extend(rows([1, 2, 3], [0, 0, 0]), torch.tensor([True, False, True]))
    assert isinstance(buffer.size, Tensor)
    assert buffer.size.item() == 2


def test_writing_and_sampling_never_wait_for_the_device() -> None:
    buffer = ReplayBuffer(8, SPEC._replace(device=torch.device("meta")))  # meta tensors have no content: reading any would raise
    new = Experience(*(x.to("meta") for x in rows([1, 2], [0, 2])))
    for mask in (None, torch.ones(2, dtype=torch.bool, device="meta")):
        buffer.extend(new, mask)
        buffer.extend(new, mask, column=3)
    assert Mixture([buffer, NStep(buffer, 3, 0.9)], [0.5, 0.5]).sample(6).obs.shape == (6, 2)


def test_files_round_trip_and_foreign_ones_are_refused(tmp_path: Path) -> None:
    buffer, _ = written(5, [([(0, True), (2, True)], None, False)] * 4, DISCRETE)
    buffer.save(tmp_path / "replay.pt")
    loaded = ReplayBuffer.load(tmp_path / "replay.pt")
    assert loaded.spec == DISCRETE
    assert all(torch.equal(a, b) for a, b in zip(loaded.all(), buffer.all(), strict=True))
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
    with pytest.raises(UserError, match="capacity 5, but this run wants 6"):
        ReplayBuffer(6, DISCRETE).load_state_dict(buffer.state_dict())
    with pytest.raises(UserError, match="discrete"):
        ReplayBuffer(5, SPEC._replace(action_dim=5)).load_state_dict(buffer.state_dict())


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        ReplayBuffer(4, EnvSpec(3, 1, torch.device("cpu"))).extend(rows([1], [0]))
    with pytest.raises(UserError, match="at least 1"):
        ReplayBuffer(0, SPEC)


@pytest.mark.parametrize("capacity", [10**12, 10**18, 10**30])
def test_a_capacity_beyond_the_memory_is_named(capacity: int) -> None:
    with pytest.raises(UserError, match=f"loop.buffer_size={capacity} asks for {(capacity + 1) * 56} bytes") as caught:
        ReplayBuffer(capacity, SPEC)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", ["obs", "action", "terminated"])
def test_fields_may_lie_on_different_devices(field: str) -> None:
    new = rows([1, 2], [0, 2])._replace(ended=torch.tensor([False, True]))
    there = {name: getattr(new, name).to("meta") for name in ((field, "ended") if field == "terminated" else (field,))}
    buffer = ReplayBuffer(8, SPEC._replace(device=torch.device("meta")))
    buffer.extend(new._replace(**there))
    assert buffer.sample(3).obs.shape == (3, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_actions_from_the_gpu_meet_observations_from_the_cpu(device: str) -> None:
    buffer, new = ReplayBuffer(8, SPEC._replace(device=torch.device(device))), rows([1, 2], [0, 2])
    buffer.extend(new._replace(action=new.action.cuda()))
    assert all(torch.equal(a.cpu(), b) for a, b in zip(buffer.all()[:4], new[:4], strict=True))


class Constant:
    """A source whose rows say where they came from."""

    def __init__(self, value: float) -> None:
        self.value = value

    def sample(self, n: int) -> Transition:
        x = torch.full((n,), self.value)
        return Transition(x[:, None], x[:, None], x, x[:, None], x)


@given(st.integers(0, 500), st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
def test_counts_sum_and_lie_within_one_of_the_share(n: int, weights: list[int]) -> None:
    fractions = [w / sum(weights) for w in weights]
    got = counts(n, fractions)
    assert sum(got) == n
    assert all(abs(c - n * f) < 1 for c, f in zip(got, fractions, strict=True))
    assert all(c == 0 for c, f in zip(got, fractions, strict=True) if f == 0)


def test_mixture_holds_its_fraction_in_every_batch() -> None:
    mixture = Mixture([Constant(0), Constant(1), ReplayBuffer(3, SPEC)], [0.05, 0.95, 0])
    for _ in range(3):
        assert mixture.sample(256).reward.sum() == 243
    assert counts(100, [0.29, 0.71]) == [29, 71]  # 100 * 0.29 is 28.999... in floating point
    for fractions in ([0.5, 0.6, 0], [1.5, -0.5, 0], [1.0]):
        with pytest.raises(UserError, match="sum 1"):
            Mixture(mixture.sources, fractions)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_extend_and_sample_are_captured_in_a_graph() -> None:
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
    assert batch.obs[:, 0].min() >= ids(eager.all().obs)[0]
