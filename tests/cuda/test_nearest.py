# SPDX-License-Identifier: Apache-2.0
"""The card's search for neighbours, executed on the host, finds the distances of the CPU's, to the last bit."""

import pretended_card
import pytest
import simple_knn
import torch
from pretended_card import CARD
from simple_knn import distCUDA2, nearest


@pytest.fixture
def card(search_on_host, monkeypatch):
    monkeypatch.setattr(simple_knn, "_cuda", search_on_host)
    with pretended_card.pretend(monkeypatch) as card:
        yield card


def clouds() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    ball = torch.randn(700, 3, generator=g)
    return {
        "a ball": ball,
        "clusters far from zero": torch.cat([ball * 1e-3 + 1e4, ball[:300] - 1e4]),
        "a plane": ball * torch.tensor([1.0, 1.0, 0.0]),
        "duplicates": torch.cat([ball[:200], ball[:200]]),
        "all in one place": torch.ones(300, 3),
        "four points": ball[:4],
        "a box and one more": ball[:129],
    }


@pytest.mark.parametrize("name", clouds())
@pytest.mark.parametrize("k", [1, 3, 40])
def test_distances_are_those_of_the_cpu_and_belong_to_the_indices(card, name, k):
    points = clouds()[name]
    k = min(k, len(points) - 1)
    _, expected = nearest(points, k, dtype=torch.float64)
    indices, squared = nearest(points.to(CARD), k, dtype=torch.float64)
    assert indices.device == squared.device == CARD
    indices, squared = indices.cpu(), squared.cpu()
    assert torch.equal(squared, expected)
    exact = points.double()
    assert torch.equal((exact[indices] - exact[:, None]).square().sum(2), squared)
    assert not (indices == torch.arange(len(points))[:, None]).any()
    assert all(len(set(row)) == k for row in indices.tolist())


def test_the_mean_distance_is_that_of_the_cpu(card):
    points = clouds()["a ball"]
    assert torch.equal(distCUDA2(points.to(CARD)).cpu(), distCUDA2(points))
    assert distCUDA2(points[:1].to(CARD)).tolist() == [0]


def test_coordinates_that_are_not_finite_are_refused(card):
    with pytest.raises(ValueError, match="not finite"):
        distCUDA2(torch.full((5, 3), torch.nan).to(CARD))
