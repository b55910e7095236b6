# SPDX-License-Identifier: Apache-2.0
"""Adam makes the steps of torch.optim.Adam."""

import pytest
import torch
from diff_gaussian_rasterization.optim import adam_step


def gradients(shape, steps, dtype):
    """Noise over many orders of magnitude, with zeros, as sparse scenes give."""
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        magnitude = 10 ** (-8 * torch.rand(shape, generator=rng, dtype=torch.float64))
        noise = torch.randn(shape, generator=rng, dtype=torch.float64) * magnitude
        yield (noise * (torch.rand(shape, generator=rng) < 0.7)).to(dtype)


def run_ours(start, steps, **options):
    parameter = start.clone()
    moments = torch.zeros_like(start), torch.zeros_like(start)
    for step, gradient in enumerate(gradients(start.shape, steps, start.dtype), 1):
        adam_step(parameter, gradient, *moments, step=step, **options)
    return parameter, *moments


def run_torch(start, steps, lr, **options):
    parameter = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=lr, **options)
    for gradient in gradients(start.shape, steps, start.dtype):
        parameter.grad = gradient
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 3), (123, 15, 3), (1000, 1), (0, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 3e-6)])
def test_fifty_steps_are_those_of_torch(shape, dtype, tolerance):
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    ours = run_ours(start, 50, lr=0.01)[0]
    theirs = run_torch(start, 50, 0.01, eps=1e-15)
    torch.testing.assert_close(ours - start, theirs - start, rtol=tolerance, atol=tolerance)


def test_other_betas_and_epsilon_are_those_of_torch():
    start = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = run_ours(start, 20, lr=0.1, betas=(0.8, 0.95), eps=1e-3)[0]
    theirs = run_torch(start, 20, 0.1, betas=(0.8, 0.95), eps=1e-3)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_each_row_can_have_its_own_rate():
    start = torch.randn(37, 5, generator=torch.Generator().manual_seed(1))
    rates = torch.linspace(0, 0.1, 37)
    together = run_ours(start, 10, lr=rates)[0]
    for row, rate in enumerate(rates.tolist()):
        alone = run_ours(start, 10, lr=rate)[0][row]
        torch.testing.assert_close(together[row], alone, rtol=1e-6, atol=1e-7)
    assert torch.equal(together[0], start[0])


def test_the_first_step_is_the_rate_against_the_gradients_sign():
    parameter, gradient = torch.zeros(4), torch.tensor([1e-8, -3.0, 0.0, 1e10])
    adam_step(parameter, gradient, torch.zeros(4), torch.zeros(4), lr=0.5, step=1)
    torch.testing.assert_close(parameter, torch.tensor([-0.5, 0.5, 0.0, -0.5]))


@pytest.mark.parametrize("rows", [False, True])
def test_any_number_of_threads_gives_the_same_bits(rows):
    start = torch.randn(50_001, 3, generator=torch.Generator().manual_seed(1))
    lr = torch.rand(50_001, generator=torch.Generator().manual_seed(2)) if rows else 0.01
    alone = run_ours(start, 2, lr=lr, threads=1)
    for threads in (2, 3, 4):
        together = run_ours(start, 2, lr=lr, threads=threads)
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set_agrees(isa, monkeypatch):
    start = torch.randn(101, 3, generator=torch.Generator().manual_seed(1))
    wanted = run_torch(start, 5, 0.01, eps=1e-15)
    monkeypatch.setenv("DGR_ISA", isa)
    try:
        found = run_ours(start, 5, lr=0.01)[0]
    except ValueError as refused:
        pytest.skip(str(refused))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_what_does_not_fit_is_refused_by_name():
    good = [torch.zeros(4, 3) for _ in range(4)]
    with pytest.raises(ValueError, match="exp_avg must have shape"):
        adam_step(good[0], good[1], torch.zeros(4, 2), good[3], lr=0.1, step=1)
    with pytest.raises(ValueError, match="lr must have shape"):
        adam_step(*good, lr=torch.zeros(3), step=1)
    with pytest.raises(ValueError, match="param is changed in place"):
        adam_step(torch.zeros(3, 4).T, *good[1:], lr=0.1, step=1)
    with pytest.raises(ValueError, match="step counts from 1"):
        adam_step(*good, lr=0.1, step=0)
