"""Muon: matrices and kernels that move orthogonally, in any memory format, precision and company."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from titokcodec.models.generator_config import GeneratorConfig
from titokcodec.models.maskgit import make
from training.defaults import GENERATOR, VQGAN
from training.muon import Muon, orthogonal
from training.optimizers import Optimizers


@pytest.mark.parametrize("shape", [(24, 24), (64, 16), (12, 40)])
def test_updates_are_nearly_orthogonal(shape):
    """Singular values from 0.02 up end near 1, and the directions stay."""
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(side, min(shape)))[0] for side in shape)
    values = torch.logspace(-1.5, 0, min(shape))
    found = orthogonal((left * values @ right.T)[None])[0]
    assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.35
    inside = left.T @ found @ right
    assert (inside - inside.diag().diag()).abs().max() < 0.02


def test_matrices_of_one_shape_do_not_mix():
    torch.manual_seed(0)
    matrices = torch.randn(3, 10, 6)
    for alone, together in zip(matrices, orthogonal(matrices), strict=True):
        torch.testing.assert_close(orthogonal(alone[None])[0], together, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has a Muon of its own from 2.9 on")
def test_it_takes_the_steps_of_the_one_in_pytorch():
    """Which computes in bfloat16, hence the tolerance."""
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(20, 8)) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.2}
    both = Muon([ours], **settings), torch.optim.Muon([theirs], **settings)
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(20, 8)
        for optimizer in both:
            optimizer.step()
    assert (ours - theirs).norm() < 0.02 * (ours - 1).norm()


def test_a_step_moves_every_parameter_as_if_it_were_alone():
    """Matrices of two shapes, a kernel, and one without a gradient, which stays where it is."""
    torch.manual_seed(0)
    shapes, rate, decay, momentum = [(6, 4), (6, 4), (4, 10), (5, 3, 2, 2), (3, 3)], 0.1, 0.2, 0.9
    parameters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    expected = [p.detach().clone() for p in parameters]
    means = [torch.zeros(shape) for shape in shapes]
    optimizer = Muon(parameters, lr=rate, weight_decay=decay, momentum=momentum)
    for _ in range(3):
        for p, place, mean in zip(parameters[:-1], expected, means, strict=False):
            p.grad = torch.randn(p.shape)
            mean.copy_(momentum * mean + (1 - momentum) * p.grad)
            matrix = ((1 - momentum) * p.grad + momentum * mean).flatten(1)
            turned = orthogonal(matrix[None])[0].view(p.shape)
            step = rate * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            place.copy_(place * (1 - rate * decay) - step * turned)
        optimizer.step()
    for p, place in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.detach(), place, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_kernels_are_matrices(memory):
    """A convolution over patches that do not overlap learns as the linear layer does that it is."""
    torch.manual_seed(0)
    hyper = replace(VQGAN.short.optimizer, decay=0.1)
    kernel = nn.ModuleDict({"block": nn.Conv2d(3, 5, 2, stride=2, bias=False)}).to(memory_format=memory)
    matrix = nn.ModuleDict({"block": nn.Linear(12, 5, bias=False)})
    with torch.no_grad():
        matrix["block"].weight.copy_(kernel["block"].weight.flatten(1))
    both = Optimizers(kernel, hyper), Optimizers(matrix, hyper)
    start = kernel["block"].weight.detach().clone()
    for turn in range(6):
        patches = torch.randn(7, 3, 2, 2)
        (kernel["block"](patches).flatten(1) - 1).square().mean().backward()
        (matrix["block"](patches.flatten(1)) - 1).square().mean().backward()
        for optimizers in both:
            optimizers.step(0.5)
        assert kernel["block"].weight.grad is None
        if turn == 2:  # as a resumed run does
            states = both[0].state_dict()
            both = Optimizers(kernel, hyper), both[1]
            both[0].load_state_dict(states)
    torch.testing.assert_close(kernel["block"].weight.flatten(1), matrix["block"].weight, atol=1e-5, rtol=1e-4)
    assert (kernel["block"].weight - start).abs().mean() > 0.01


def test_in_generators_it_moves_the_blocks_and_tables_do_not_decay():
    """A table has a vector for each class or position, or a number for each code: decay would only forget the rare."""
    model = make(GeneratorConfig("codes", 8, codes=16, classes=3, width=8, layers=1, heads=1, mlp=8, hidden=8))
    names = {id(value): name for name, value in model.named_parameters()}
    adam, muon = Optimizers(model, GENERATOR.short.optimizer).all
    found = {names[id(value)] for group in muon.param_groups for value in group["params"]}
    assert found == {f"blocks.0.{part}.weight" for part in ("qkv", "proj", "fc1", "fc2")}
    lasting = {names[id(v)] for group in adam.param_groups if not group["weight_decay"] for v in group["params"]}
    assert {"bias", "positions", "classes", "mask", "blocks.0.qkv.bias"} <= lasting
    assert not {"enter.enter.weight", "leave.leave.weight"} & lasting
