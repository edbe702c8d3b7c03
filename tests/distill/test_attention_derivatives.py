"""The divergence of attention, which has a gradient written by hand, under whatever differentiates it."""

import pytest
import torch

from lianzhi.distill import losses

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
SHAPES = {
    "attention_kl": [(2, 4, 4)],
    "minilm": [(2, 4, 4), (2, 4, 3)],
    "minilm_v2": [(2, 4, 6)] * 3,
}


@pytest.fixture(params=SHAPES)
def case(request):
    """The loss, what it is derived by, and the rest of what it takes: samples are the first axis."""
    torch.manual_seed(3)
    sides = [[torch.randn(3, *shape, dtype=torch.float64) for shape in SHAPES[request.param]] for _ in "st"]
    loss = getattr(losses, request.param)

    def value(tensor, *others, mask=MASK):
        return loss(tensor, *others, mask=mask, by_sample=True)

    first, *rest = [*sides[0], *sides[1]]
    return request.param, value, first, rest


def gradient(value, first, rest):
    tensor = first.clone().requires_grad_()
    (found,) = torch.autograd.grad(value(tensor, *rest), tensor)
    return found


def test_second_derivatives_are_right(case):
    _, value, first, rest = case
    assert torch.autograd.gradgradcheck(
        lambda tensor: value(tensor, *rest), first.requires_grad_(), fast_mode=True
    )


def test_gradients_of_functions(case):
    _, value, first, rest = case
    wanted = gradient(value, first, rest)
    torch.testing.assert_close(torch.func.grad(value)(first, *rest), wanted)

    def of_one(tensor, keep, *others):
        return value(tensor[None], *(other[None] for other in others), mask=keep[None])

    apart = torch.vmap(torch.func.grad(of_one))(first, MASK, *rest)
    torch.testing.assert_close(apart / len(first), wanted)


def test_derivatives_forward(case):
    _, value, first, rest = case
    wanted = gradient(value, first, rest)
    along = torch.func.jvp(lambda tensor: value(tensor, *rest), (first,), (wanted,))[1]
    torch.testing.assert_close(along, wanted.square().sum())


def test_compiled(case):
    name, value, first, rest = case
    whole = name != "minilm_v2"  # whose options are checked outside of the graph
    compiled = torch.compile(value, backend="aot_eager", fullgraph=whole)
    torch.testing.assert_close(gradient(compiled, first, rest), gradient(value, first, rest))


def test_the_wider_type_of_both_is_kept():
    student, teacher = (3 * torch.randn(1, 2, 4, 4) for _ in range(2))
    assert losses.attention_kl(student.double(), teacher).dtype == torch.float64
    assert losses.attention_kl(student, teacher.double()).dtype == torch.float64
