import math
from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.attention import add_key, attend, label_weights

POWERS = [0.5, 1.0, 2.0, 100.0, math.inf]


def slow_weights(scores: list[float], active: list[bool], power: float) -> list[float]:
    """Take the powers in decimal numbers, which have no largest one; equals at an infinite power: the first."""
    getcontext().prec = 60
    if math.isinf(power):
        best = max((x for x, on in zip(scores, active, strict=True) if on))
        first = next(j for j, (x, on) in enumerate(zip(scores, active, strict=True)) if on and x == best)
        return [float(j == first) for j in range(len(scores))]
    powers = [abs(Decimal(x)) ** Decimal(power) * (1 if x > 0 else -1) if x else Decimal(0) for x in scores]
    best = max(t for t, on in zip(powers, active, strict=True) if on)
    exponentials = [max(t - best, Decimal(-2000)).exp() if on else 0 for t, on in zip(powers, active, strict=True)]
    return [float(e / sum(exponentials)) for e in exponentials]


def weights_and_gradient(scores: list[float], active: list[bool], power: float) -> tuple[np.ndarray, np.ndarray]:
    x = torch.tensor(scores, requires_grad=True)
    weights = label_weights(x, torch.tensor(active), power)
    (weights * (x + torch.arange(len(scores)))).sum().backward()
    assert x.grad is not None
    return weights.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize(
    "scores",
    [
        [0.3, -0.8, 0.1],
        [-0.3, -0.8, -2.0],
        [20.0, 19.999998, -21.0],
        [-20.0, -19.999998, -20.000002],
        [0.0, 0.0, 0.0],
        [0.0, -3.0, -0.5],
        [1e-30, -1e-30, 1e-6],
        [500.0, 499.0, -1000.0],
        [0.99, 1.01, -1.0],
    ],
)
def test_label_weights_follow_the_formula(scores: list[float], power: float) -> None:
    """Weights are the softmax of sign(x)|x|^p for scores of both signs, near ties and powers past float64's largest."""
    exact = [float(x) for x in np.float32(scores)]
    found, gradient = weights_and_gradient(exact, [True] * 3, power)
    np.testing.assert_allclose(found, slow_weights(exact, [True] * 3, power), atol=1e-5)
    assert np.isfinite(gradient).all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.booleans()), min_size=1, max_size=6),
    st.sampled_from([*POWERS, 4.0, 4.5]),
)
def test_label_weights_are_a_distribution_over_active_interests(pairs: list[tuple[float, bool]], power: float) -> None:
    """Whatever the scores: no NaN, inactive interests get nothing, the weights are the formula's."""
    scores, active = [x for x, _ in pairs], [on for _, on in pairs]
    active[0] = True
    found, gradient = weights_and_gradient(scores, active, power)
    np.testing.assert_allclose(found, slow_weights(scores, active, power), atol=1e-5)
    assert np.isfinite(gradient).all()
    assert not found[~np.array(active)].any()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("scores", [[0.7, -0.4, 1.3], [-0.7, -0.4, -1.3], [0.5, 0.5, -0.5], [-0.6, -0.6, -0.6]])
def test_the_gradient_of_label_weights_is_that_of_the_formula(scores: list[float], power: float) -> None:
    """Taking differences between logarithms changes no gradient, not even at ties."""
    x = torch.tensor(scores, dtype=torch.float64, requires_grad=True)
    plain = (x.sign() * x.abs() ** power).softmax(dim=-1)
    expected = torch.autograd.grad((plain * torch.arange(3)).sum(), x)[0]
    found = label_weights(x, torch.ones(3, dtype=torch.bool), power)
    np.testing.assert_allclose(torch.autograd.grad((found * torch.arange(3)).sum(), x)[0], expected, atol=1e-9)


@pytest.mark.parametrize("power", POWERS)
def test_label_weights_take_any_axis(power: float) -> None:
    """The axis of the interests changes where they lie and nothing else."""
    scores = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32))
    active = torch.tensor([[True, False, True], [True, True, True]])[:, :, None]
    across = label_weights(scores.transpose(1, 2), active.transpose(1, 2), power)
    torch.testing.assert_close(label_weights(scores, active, power, dim=1), across.transpose(1, 2))


@pytest.mark.parametrize("real", [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
def test_a_key_can_be_added_to_finished_attention(real: list[int]) -> None:
    """Attention plus one key is exactly the attention that had the key from the start, even if it is the only one."""
    rng = np.random.default_rng(5)
    query, key, value = (torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32)) for n in (2, 5, 5))
    mask = torch.tensor(real, dtype=torch.bool)[None]
    mixed, log_total = attend(query, key[:4], value[:4] * mask.T, mask)
    logit = query @ key[4:].T / math.sqrt(3)
    whole, _ = attend(query, key, value, torch.cat([mask, torch.ones(1, 1, dtype=torch.bool)], dim=1))
    torch.testing.assert_close(add_key(mixed, log_total, logit, value[4:]), whole, atol=1e-6, rtol=0)
