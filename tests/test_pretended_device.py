"""The pretended CUDA device refuses and counts what a real one would refuse or wait for."""

import pytest
import torch

pytestmark = pytest.mark.gpu


def captured(call):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()
    return graph, out


@pytest.mark.usefixtures("pretended_device")
def test_tensors_of_two_devices_and_numpy_are_refused():
    x = torch.ones(3, device="cuda")
    assert x.is_cuda
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        x.numpy()
    assert (x + torch.tensor(2.0)).tolist() == [3, 3, 3]  # a 0-d tensor of the host is a number


def test_waits_are_counted_or_refused(pretended_device):
    x = torch.ones(3, device="cuda")
    x.add_(1)
    assert not pretended_device.waits
    assert float(x.sum()) == 6
    x[0] = 5
    assert pretended_device.waits.total() == 2
    torch.cuda.set_sync_debug_mode("error")
    for waiting in (lambda: float(x[0]), lambda: x[x > 2], lambda: x.cpu(), lambda: torch.tensor([1.0], device="cuda")):
        with pytest.raises(RuntimeError, match="synchronizing"):
            waiting()


@pytest.mark.usefixtures("pretended_device")
def test_a_capture_computes_nothing_and_a_replay_does():
    x, total = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")

    def step():
        total.add_(x)
        return total * 2

    graph, out = captured(step)
    assert total.tolist() == [0, 0, 0]
    assert out.isnan().all()
    for n in (1, 2):
        graph.replay()
        assert total.tolist() == [n, n, n]
        assert out.tolist() == [2 * n, 2 * n, 2 * n]


@pytest.mark.usefixtures("pretended_device")
def test_a_capture_refuses_waits_and_pageable_memory():
    x = torch.ones(3, device="cuda")
    for waiting in (lambda: float(x.sum()), lambda: x.copy_(torch.ones(3)), lambda: x.cpu()):
        with pytest.raises(RuntimeError, match="in a capture"):
            captured(waiting)


@pytest.mark.usefixtures("pretended_device")
def test_a_replay_draws_the_random_numbers_of_the_device():
    torch.manual_seed(3)
    host, expected = torch.get_rng_state(), [torch.rand(2, device="cuda") for _ in range(2)]
    torch.manual_seed(3)
    graph, out = captured(lambda: torch.rand(2, device="cuda"))
    for value in expected:
        graph.replay()
        assert torch.equal(out, value)
    assert torch.equal(torch.get_rng_state(), host)


@pytest.mark.usefixtures("pretended_device")
def test_a_graph_that_uses_freed_memory_is_refused():
    x = torch.ones(3, device="cuda")
    graph, _ = captured(lambda: x * 2)
    graph.replay()
    x = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="freed"):
        graph.replay()


@pytest.mark.usefixtures("pretended_device")
def test_copies_that_do_not_block_arrive_once_they_are_waited_for():
    pinned, there = torch.empty(2, pin_memory=True), torch.tensor([1.0, 2.0], device="cuda")
    pinned.copy_(there, non_blocking=True)
    assert pinned.isnan().all()
    event = torch.cuda.Event()
    event.record()
    event.synchronize()
    assert pinned.tolist() == [1, 2]
    there.copy_(pinned, non_blocking=True)
    pinned.fill_(7)  # too early
    with pytest.raises(RuntimeError, match="under way"):
        torch.cuda.synchronize()
