"""The decoder: causal, its cache exact, its rotary positions relative."""

from __future__ import annotations

import torch

from netwright.core.network import seeded
from netwright.models import build
from netwright.models.causal_transformer import rotated


def network():
    with seeded(0):
        made = build("causal-transformer", (12,), 5, vocabulary=30, width=16, depth=2, heads=2).eval()
    for weight in made.parameters():
        weight.data.mul_(3)
    return made


def test_a_later_token_changes_nothing_before_it():
    made, tokens = network(), torch.randint(30, (2, 12), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 7] = (other[:, 7] + 1) % 30
    with torch.no_grad():
        gap = (made(tokens) - made(other)).abs().amax((0, 2))
    assert (gap[:7] == 0).all()
    assert (gap[7:] > 0).all()


def test_one_token_at_a_time_gives_what_all_at_once_give():
    made, tokens = network(), torch.randint(30, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = made(tokens)
        first, cache = made.step(tokens[:, :5])
        found = [first]
        for i in range(5, 12):
            logits, cache = made.step(tokens[:, i : i + 1], cache)
            found.append(logits)
    torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=1e-5)
    assert cache[0][0].shape == (2, 2, 12, 8)


def test_products_of_turned_queries_and_keys_know_distances_alone():
    made, draw = network(), torch.Generator().manual_seed(0)
    q, k = torch.randn(8, generator=draw), torch.randn(8, generator=draw)
    at = lambda x, place: rotated(x.view(1, 1, 1, 8), made._turn(place, 1)).flatten()
    assert torch.allclose(at(q, 9) @ at(k, 4), at(q, 25) @ at(k, 20), atol=1e-5)
    assert not torch.allclose(at(q, 9) @ at(k, 4), at(q, 9) @ at(k, 5), atol=1e-3)
    assert torch.allclose(at(q, 3).norm(), q.norm())
