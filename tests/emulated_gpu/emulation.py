"""What the emulated GPU must refuse as a real one does: a test that runs on it could not fail otherwise."""

import multiprocessing
import os

import pytest
import torch
from torch import nn

GPU = torch.device("cuda:0")


def recorded(function, *generators):
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        function()
    return graph


def test_tensors_lie_on_a_device_that_is_not_the_hosts():
    x = torch.zeros(3, device="cuda")
    assert x.is_cuda and x.device == GPU and torch.zeros(3, device="cuda:1").get_device() == 1
    with torch.cuda.device(1):
        assert torch.zeros(3, device="cuda").get_device() == 1
    with pytest.raises(RuntimeError, match="invalid device"):
        torch.zeros(3, device="cuda:2")
    with pytest.raises(TypeError, match="can't convert cuda"):
        x.numpy()


@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_operands_lie_on_one_device(other):
    x, y = torch.zeros(3, device=GPU), torch.zeros(3, device=other)
    for operation in (lambda: x + y, lambda: y.add_(x), lambda: torch.cat((x, y)), lambda: torch.where(x > 0, x, y)):
        with pytest.raises(RuntimeError, match="to be on the same device"):
            operation()
    assert (x + torch.tensor(2.0) == 2).all()  # a number may come from the host


def test_generator_belongs_to_its_device():
    for generator in (torch.Generator(), torch.Generator("cuda:1")):
        with pytest.raises(RuntimeError, match="generator"):
            torch.rand(3, device=GPU, generator=generator)
    draws = [torch.rand(3, device=GPU, generator=torch.Generator(GPU).manual_seed(4)) for _ in range(2)]
    assert torch.equal(*draws)


def test_new_memory_holds_no_number():
    assert torch.empty(5, device=GPU).isnan().all()


def test_views_share_memory_and_gradients_are_those_of_a_cpu():
    x = torch.arange(12.0, device=GPU).view(3, 4)
    x[1, ::2] = -1.0
    assert x.tolist() == [[0, 1, 2, 3], [-1, 5, -1, 7], [8, 9, 10, 11]]
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ELU(), nn.Linear(8, 2))
    inputs = torch.randn(5, 4)
    net(inputs).square().sum().backward()
    expected = [p.grad for p in net.parameters()]
    net.zero_grad()
    net.to(GPU)(inputs.to(GPU)).square().sum().backward()
    for parameter, grad in zip(net.parameters(), expected):
        assert parameter.grad.is_cuda
        torch.testing.assert_close(parameter.grad.cpu(), grad)


def test_memory_of_the_host_is_used_once_it_is_pinned_and_for_as_long():
    x = torch.arange(1000.0)
    interface = {"shape": (1000,), "typestr": "<f4", "data": (x.data_ptr(), False), "version": 2}
    there, cuda = type("There", (), {"__cuda_array_interface__": interface}), torch.cuda.cudart()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not registered"):
            torch.as_tensor(there(), device="cuda")
        assert int(cuda.cudaHostRegister(x.data_ptr(), 4000, 3)) == 0
        assert int(cuda.cudaHostRegister(x.data_ptr() + 3000, 4000, 3)) == 712
        view = torch.as_tensor(there(), device="cuda")
        view.add_(1)
        assert view.device == GPU and x[999] == view[999]
        assert int(cuda.cudaHostUnregister(x.data_ptr())) == 0
    assert int(cuda.cudaHostUnregister(x.data_ptr())) == 713


WAITS = {
    "a value": lambda x: x.sum().item(),
    "a truth": lambda x: bool((x > 0).any()),
    "what comes to the host": lambda x: x.cpu(),
    "what comes from it": lambda x: torch.tensor([1.0], device=GPU),
    "how many there are": lambda x: x.nonzero(),
    "a choice by booleans": lambda x: x[x > 0],
    "a place by booleans": lambda x: x.__setitem__(x > 0, 1.0),
}


@pytest.mark.parametrize("what", WAITS)
def test_waiting_for_the_device_is_told_and_is_in_no_recording(what):
    x = torch.ones(3, device=GPU)
    torch.cuda.set_sync_debug_mode("error")
    try:
        x + 1
        with pytest.raises(RuntimeError, match="synchronizing"):
            WAITS[what](x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    WAITS[what](x)
    with pytest.raises(RuntimeError, match="capturing"):
        recorded(lambda: WAITS[what](x))
    x + 1


def test_recording_does_nothing_and_a_replay_all_on_the_same_memory():
    x, total, results = torch.ones(3, device=GPU), torch.zeros((), device=GPU), []

    def work():
        x.mul_(2)
        results.append(x.sum().view(1))
        total.add_(results[-1][0])

    graph = recorded(work)
    assert x.tolist() == [1, 1, 1] and float(total) == 0
    graph.replay()
    assert (x.tolist(), results[0].tolist(), float(total)) == ([2, 2, 2], [6], 6)
    x.fill_(5)  # what is written in place is seen
    graph.replay()
    assert (x.tolist(), results[0].tolist(), float(total)) == ([10, 10, 10], [30], 36)


def test_recording_holds_the_backward_pass_too():
    weight, inputs = torch.ones(2, 2, device=GPU, requires_grad=True), torch.ones(1, 2, device=GPU)
    weight.grad = torch.zeros_like(weight)

    def work():
        weight.grad.zero_()
        (inputs @ weight).square().sum().backward()

    graph = recorded(work)
    assert weight.grad.tolist() == [[0, 0], [0, 0]]
    inputs.fill_(2.0)
    graph.replay()
    assert weight.grad.tolist() == [[16, 16], [16, 16]]


def test_graph_draws_on_from_a_generator_that_it_knows():
    generator, x = torch.Generator(GPU).manual_seed(0), torch.zeros(4, device=GPU)

    def work():
        x.copy_(torch.rand(4, device=GPU, generator=generator))

    with pytest.raises(RuntimeError, match="not registered"):
        recorded(work)
    state = generator.get_state()
    graph = recorded(work, generator)
    draws = []
    for _ in range(2):
        graph.replay()
        draws.append(x.clone())
    generator.set_state(state)
    for draw in draws:
        work()
        assert torch.equal(x, draw)
    assert not torch.equal(*draws)


def test_generator_is_lost_in_a_recording_that_fails():
    generator, x = torch.Generator(GPU).manual_seed(0), torch.ones(3, device=GPU)
    with pytest.raises(RuntimeError, match="capturing"):
        recorded(lambda: float(x.sum()), generator)
    with pytest.raises(RuntimeError, match="Offset increment"):
        torch.rand(3, device=GPU, generator=generator)
    generator.graphsafe_set_state(torch.Generator(GPU).manual_seed(0))
    torch.rand(3, device=GPU, generator=generator)


def write(tensor, value):
    tensor.fill_(value)


def test_memory_is_another_process_s_too():
    x = torch.zeros(4, device="cuda:1")
    child = multiprocessing.get_context("spawn").Process(target=write, args=(x[1:3], 7.0))
    child.start()
    child.join(60)
    assert child.exitcode == 0 and x.tolist() == [0, 7, 7, 0]


def test_it_is_what_these_tests_ran_on():
    assert os.environ["EMULATED_GPU"] and "Emulated" in torch.cuda.get_device_name()
