"""A restorer fitted to what peer reconstruction makes of public images: on which pairs, at whose cost."""

from __future__ import annotations

import pytest
import torch
from test_peer import PEER, asked, rng
from toys import observed

from leakboard.attack.fitting import fitted, paired
from leakboard.models.restorer import restoring


def test_a_restorer_is_fitted_to_what_the_search_makes_of_public_images_and_to_nothing_hidden():
    """Of no rehearsals no pairs; of some, another restorer, the same whatever the victims' images are."""
    seen = observed(asked(batch=3, knows=("local_training", "labels")))[2]
    torch.manual_seed(0)
    seen.prior, seen.budget = restoring("nafnet", 1, 4, 1, rng()).requires_grad_(False).eval(), None
    attack = PEER(steps=3, post="fitted", rehearsals=2, updates=5)
    one = attack._fitted(seen, seen.labels, seen.local, rng(5), None)
    seen.models = [seen.models[0], {name: 2 * value for name, value in seen.models[1].items()}]
    other = attack._fitted(seen, seen.labels, seen.local, rng(5), None)
    images = torch.rand(2, 1, 8, 8, generator=rng(6))
    assert torch.equal(one(images), other(images)) and not torch.equal(one(images), seen.prior(images))
    assert not any(parameter.requires_grad for parameter in one.parameters())


@pytest.mark.parametrize("rehearsals", [1, 3])
def test_rehearsals_and_the_search_share_the_budget(rehearsals):
    seen, passed = observed(asked(batch=3))[2], []
    seen.model.register_forward_hook(lambda module, given, out: passed.append(1))
    seen.prior, seen.budget = restoring("residual", 1, 4, 1, rng()).eval(), 120
    PEER(dummies=6, steps=30, post="fitted", rehearsals=rehearsals, updates=2).reconstruct(seen, rng())
    assert 60 < sum(passed) <= 120


def test_pairs_are_those_that_lie_nearest():
    true = torch.rand(5, 1, 4, 4, generator=rng())
    order = torch.tensor([3, 0, 4, 2, 1])
    got = (true[order] + 0.01).clamp(0, 1)
    assert torch.equal(paired(got, true)[1], true[order])


def test_fitting_brings_what_was_darkened_nearer():
    true = torch.rand(40, 1, 8, 8, generator=rng())
    before = restoring("nafnet", 1, 8, 1, rng()).eval()
    after = fitted(before, true / 2, true, 100, rng(1))
    errors = [float((network(true / 2) - true).detach().abs().mean()) for network in (before, after)]
    assert errors[1] < 0.5 * errors[0]
