import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.losses import (
    binary_cross_entropy,
    full_softmax,
    interest_weights,
    sampled_softmax,
    score_targets,
    serving_scores,
)
from models.trainers import sampler_of

USERS, INTERESTS, WIDTH, ITEMS, TARGETS = 3, 4, 5, 7, 2


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(7)
    interests = torch.randn(USERS, INTERESTS, WIDTH, generator=generator)
    items = torch.randn(ITEMS, WIDTH, generator=generator)
    targets = torch.randint(0, ITEMS, (USERS, TARGETS), generator=generator)
    return interests, torch.tensor([1, 3, 4]), items, targets


def reference_weights(scores, power):
    """Softmax over active interests of sign(x)|x|^p, from the formula."""
    if math.isinf(power):
        return np.eye(len(scores))[int(np.argmax(scores))]
    raised = np.sign(scores) * np.abs(scores) ** power
    exponentials = np.exp(raised - raised.max())
    return exponentials / exponentials.sum()


@pytest.mark.parametrize("power", [0.5, 1, 2, math.inf])
@pytest.mark.parametrize("attention", ["own", "label"])
def test_scores_follow_the_formula(case, attention, power):
    """`own` mixes the interests anew for every item; `label` scores all items through the target's mix."""
    interests, count, items, targets = case
    positive, candidates = score_targets(interests, count, items[targets], items, attention=attention, power=power)
    candidates = candidates.expand(-1, TARGETS, -1)
    v, e = interests.double().numpy(), items.double().numpy()
    for user in range(USERS):
        active = v[user, : count[user]]
        for place in range(TARGETS):
            target = e[targets[user, place]]
            mix = reference_weights(active @ target, power) @ active
            assert float(positive[user, place]) == pytest.approx(mix @ target, abs=1e-5)
            for item in range(ITEMS):
                own = reference_weights(active @ e[item], power) @ active
                expected = (own if attention == "own" else mix) @ e[item]
                assert float(candidates[user, place, item]) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 30))
def test_the_short_way_of_power_one_changes_nothing(seed, scale):
    """The plain softmax that power 1 takes gives the weights that the general form gives."""
    scores = scale * torch.randn(2, INTERESTS, 6, generator=torch.Generator().manual_seed(seed))
    active = torch.tensor([[True, False, False, False], [True, True, True, False]])[:, :, None]
    torch.testing.assert_close(
        interest_weights(scores, active, 1.0), interest_weights(scores, active, 1.0 + 1e-7), atol=1e-4, rtol=1e-4
    )


def test_the_short_way_of_infinite_power_changes_neither_values_nor_gradients(case):
    """Scores and what is learnt from them are those of one-hot weights; an inactive interest has no part in either."""
    _, count, items, targets = case

    def learnt(score):
        interests = case[0].clone().requires_grad_()
        vectors = items.clone().requires_grad_()
        positive, others = score(interests, vectors[targets], vectors)
        full_softmax(positive, others, torch.tensor([[1.0, 0.5], [2.0, 0.0], [1.0, 1.0]])).backward()
        return positive, others, interests.grad, vectors.grad

    def one_hot(interests, wanted, vectors):
        active = (torch.arange(INTERESTS) < count[:, None])[:, :, None]
        scored = [interests @ side.mT for side in (wanted, vectors)]
        positive, others = (
            (interest_weights(scores, active, math.inf) * scores).sum(dim=1, keepdim=True) for scores in scored
        )
        return positive[:, 0], others

    short = learnt(lambda *given: score_targets(given[0], count, *given[1:], attention="own", power=math.inf))
    for one, other in zip(short, learnt(one_hot), strict=True):
        torch.testing.assert_close(one, other)


def test_serving_scores_never_come_from_an_inactive_interest(case):
    """Serving takes the best inner product over the active interests alone."""
    interests, count, items, _ = case
    found = serving_scores(interests, count, items)
    for user in range(USERS):
        expected = (interests[user, : count[user]] @ items.T).amax(dim=0)
        torch.testing.assert_close(found[user], expected)
    torch.testing.assert_close(serving_scores(interests, count, items.expand(USERS, -1, -1)), found)


@pytest.mark.parametrize("attention", ["own", "label"])
def test_sampling_every_item_is_the_full_softmax(case, attention):
    """With all items drawn for certain, sampled softmax and full softmax are one loss."""
    interests, count, items, targets = case
    weights = torch.tensor([[1.0, 0.5], [2.0, 0.0], [1.0, 1.0]])
    positive, candidates = score_targets(interests, count, items[targets], items, attention=attention, power=1.0)
    sampler = sampler_of(np.array([50, 3, 1, 0, 9, 9, 2]), draws=100_000)
    everything = torch.arange(ITEMS)
    sampled = sampled_softmax(
        positive,
        candidates,
        weights,
        hits=targets[:, :, None] == everything,
        log_q=sampler.log_inclusion(targets),
        candidate_log_q=sampler.log_inclusion(everything),
    )
    torch.testing.assert_close(sampled, full_softmax(positive, candidates, weights))


def test_full_softmax_is_the_weighted_log_likelihood(case):
    """The loss is -log p(target), times its weight, over the number of targets that there are."""
    interests, count, items, targets = case
    weights = torch.tensor([[1.0, 0.5], [2.0, 0.0], [1.0, 1.0]])
    positive, candidates = score_targets(interests, count, items[targets], items, attention="own", power=1.0)
    logits = candidates[:, 0].double().numpy()
    likelihood = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -(np.log(np.take_along_axis(likelihood, targets.numpy(), 1)) * weights.numpy()).sum() / 5
    assert float(full_softmax(positive, candidates, weights)) == pytest.approx(expected, rel=1e-5)


def test_inclusion_probabilities_are_those_of_the_draw():
    """An item is among the different ones drawn as often as its inclusion probability says."""
    sampler = sampler_of(np.array([100, 10, 1, 0]), draws=3)
    torch.manual_seed(0)
    rounds = 4000
    found = torch.zeros(4)
    for _ in range(rounds):
        found[sampler.draw()] += 1
    expected = sampler.log_inclusion(torch.arange(4)).exp()
    torch.testing.assert_close(found / rounds, expected, atol=0.03, rtol=0)


def fitted_shares(*, corrected):
    """Fit free scores of ten items to events by sampled softmax, and return events' shares and the fitted ones."""
    torch.manual_seed(0)
    events = np.array([400, 200, 100, 50, 25, 12, 6, 3, 2, 2])
    sampler = sampler_of(events, draws=4)
    scores = torch.zeros(10, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.05)
    targets = torch.arange(10)[:, None]
    late = []
    for _ in range(400):
        drawn = sampler.draw()
        log_q, candidate_log_q = sampler.log_inclusion(targets), sampler.log_inclusion(drawn)
        loss = sampled_softmax(
            scores[targets],
            scores[drawn].expand(len(targets), 1, -1),
            torch.from_numpy(10 * events / events.sum()).float()[:, None],
            hits=targets[:, :, None] == drawn,
            log_q=log_q if corrected else torch.zeros_like(log_q),
            candidate_log_q=candidate_log_q if corrected else torch.zeros_like(candidate_log_q),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        late.append(scores.detach().clone())
    settled = torch.stack(late[200:]).mean(dim=0)  # each step sees a sample; their mean does not
    return events / events.sum(), settled.softmax(dim=0).numpy()


def test_the_log_q_correction_makes_the_learnt_shares_right():
    """Corrected scores reproduce the events' shares; uncorrected ones unlearn what the sampler favours."""
    shares, learnt = fitted_shares(corrected=True)
    _, uncorrected = fitted_shares(corrected=False)
    assert np.abs(learnt - shares).max() < 0.03
    assert np.abs(uncorrected - shares).max() > 0.2


def test_a_place_without_weight_counts_nothing_whatever_it_holds():
    """Padding does not reach the loss or its gradient, not even as an infinity."""
    logits = torch.tensor([[0.3, float("inf")]], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.3)), rel=1e-6)
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
