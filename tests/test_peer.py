"""Peer reconstruction: whose update a client sees, what its search goes through, and what nobody tells it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from toys import ROOT, observed, question

from leakboard.attack import contract
from leakboard.attack.local_steps import batches_of, mean_gradient
from leakboard.attack.matching import Matching
from leakboard.config import Benchmark
from leakboard.federation.clients import spread, train_locally
from leakboard.federation.rounds import derived
from leakboard.rng import generator
from leakboard.score.images import share_named
from leakboard.threat import ModelSequence, ModelUpdate, Public

PEER = contract.load(ROOT / "baselines" / "peer" / "attack.py")
MODULE = sys.modules[PEER.__module__]


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def asked(sees: str = "sequence", batch: int = 6, knows: tuple[str, ...] = ("local_training",), **more) -> Benchmark:
    """Digits among four clients, in double precision, so that nothing is lost in the difference of two models."""
    parts = {"clients": 4, "learning_rate": 0.003, **more.pop("federation", {})}
    network = {"name": "lenet_pooled", "width": 4, "precision": "float64"}
    stated = {"public": {"count": 64}, "network": network, "federation": parts, "batch": batch, **more}
    return question(sees, {"knows": knows}, **stated)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(tensors) -> torch.Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def apart(got, true) -> float:
    """|got - true| / |true|, all tensors as one vector."""
    return float((flat(got) - flat(true)).norm() / flat(true).norm())


def servers_view(benchmark: Benchmark, hidden, model, seen) -> torch.Tensor:
    """The peers' mean change of the model in the first round, trained again one by one."""
    clients = generator("clients", benchmark.seed, 0)
    seed = int(torch.randint(2**62, (1,), generator=clients))
    parts = spread(hidden, benchmark.federation, benchmark.federation.clients - 1, seed)[0]
    total = 0
    for place, part in enumerate(parts, 1):
        after = train_locally(model, seen.loss, part, benchmark.federation, derived(seed)(0, place))
        change = [new.double() - old.double() for new, old in zip(after.parameters(), model.parameters(), strict=True)]
        total = total + len(part.images) * flat(change)
    return total / len(hidden.images)


@pytest.mark.parametrize("batch", [6, 7])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("defence", [{}, {"secure_aggregation": {}}, {"clipping": {"norm": 1e6}}])
def test_a_client_sees_what_a_server_sees_of_its_peers(batch, steps, defence):
    """To 1e-9 in double precision, of uneven shares too, and whatever the server itself gets to see."""
    benchmark = asked(batch=batch, federation={"steps": steps}, defence=defence)
    hidden, model, seen = observed(benchmark)
    (view,) = MODULE.views_of_peers(seen, seen.local)
    true = servers_view(benchmark, hidden, model, seen)
    assert apart(view.update, [true]) < 1e-9
    whole = [seen.models[1][name] - seen.models[0][name] for name, _ in model.named_parameters()]
    assert apart(whole, [true]) > 1e-2, "with its own part in it, it is another update"


def test_of_one_step_the_view_is_the_gradient_of_all_images_of_the_peers():
    benchmark = asked(federation={"rounds": 2})
    hidden, model, seen = observed(benchmark)
    views = MODULE.views_of_peers(seen, seen.local)
    assert len(views) == 2
    for view, state in zip(views, seen.models, strict=False):
        model.load_state_dict(state)
        true = torch.autograd.grad(seen.loss(model(hidden.images), hidden.labels), list(model.parameters()))
        assert apart(view.gradient, true) < 1e-9


def test_of_a_single_peer_the_steps_that_are_gone_through_are_its_own():
    hidden, _, seen = observed(asked(federation={"clients": 2, "steps": 3}))
    assert distances(hidden, seen)[0] < 1e-9 < 1e-3 < distances(hidden, seen)[1]


def test_several_peers_drift_apart_and_their_steps_as_one_batch_are_off_in_proportion_to_the_learning_rate():
    ends = []
    for rate in (3e-4, 3e-5):
        hidden, _, seen = observed(asked(federation={"steps": 3, "learning_rate": rate}))
        ends.append(distances(hidden, seen))
    assert all(simulated < once for simulated, once in ends), "still nearer than a gradient"
    assert ends[0][0] < 2e-3 and ends[0][0] / ends[1][0] == pytest.approx(10, rel=0.1)


def distances(hidden, seen) -> tuple[float, float]:
    """How far the update is that the true images have, from the observed one: by simulation, and as a gradient."""
    (view,) = MODULE.views_of_peers(seen, seen.local)
    batches = batches_of(hidden.images, hidden.labels, seen.local)
    simulated = mean_gradient(view.model, view.loss, batches, seen.local)
    once = mean_gradient(view.model, view.loss, batches[:1], replace(seen.local, steps=1))
    return apart(simulated, view.gradient), apart(once, view.gradient)


def test_a_client_knows_its_own_images_and_labels_only_where_they_are_granted():
    hidden, _, seen = observed(asked())
    assert isinstance(seen, ModelSequence) and seen.labels is None
    assert torch.equal(seen.own_data.images, seen.public.images[:2]) and len(seen.own_data.labels) == 2
    _, _, told = observed(asked(knows=("local_training", "labels")))
    assert torch.equal(told.labels, hidden.labels.sort().values)


# ---------------------------------------------------------------------------------------------------------------------
# What is searched.


@pytest.mark.parametrize("rounds", [1, 2])
def test_nothing_tells_in_which_order_the_images_are(rounds):
    hidden, _, seen = observed(asked(federation={"rounds": rounds, "steps": 2}))
    matching = Matching(MODULE.views_of_peers(seen, seen.local), MODULE.relative_distance, "float64")
    start = torch.rand(hidden.images.shape, generator=rng(), dtype=torch.float64)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    ends = []
    for chosen in (torch.arange(6), order):
        images = start[chosen].requires_grad_()
        labels = hidden.labels[chosen].expand(rounds, -1)
        ends.append(matching(images.expand(rounds, *images.shape), labels, [images]))
    (values, (slope,)), (others, (moved,)) = ends
    torch.testing.assert_close(values, others, rtol=1e-9, atol=0)
    torch.testing.assert_close(slope[order], moved, rtol=1e-6, atol=1e-12)


def test_the_distance_is_relative_and_its_cotangent_its_derivative():
    got = [torch.randn(3, 4, generator=rng(1), dtype=torch.float64), torch.randn(5, generator=rng(2)).double()]
    seen = [torch.randn(3, 4, generator=rng(3), dtype=torch.float64), torch.randn(5, generator=rng(4)).double()]
    value, cotangent = MODULE.relative_distance(got, seen)
    assert float(value) == pytest.approx(apart(got, seen) ** 2, rel=1e-12)
    scaled, _ = MODULE.relative_distance([7 * part for part in got], [7 * part for part in seen])
    assert float(scaled) == pytest.approx(float(value), rel=1e-12)
    asking = [part.clone().requires_grad_() for part in got]
    distance = sum((one - two).square().sum() for one, two in zip(asking, seen, strict=True))
    wanted = torch.autograd.grad(distance / flat(seen).square().sum(), asking)
    for mine, true in zip(cotangent, wanted, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-12)


def test_the_observable_loss_finds_the_learning_rate_that_nobody_tells():
    """Then the search is the one of who was told, to the bit."""
    told = observed(asked(batch=3))[2]
    secretly = observed(asked(batch=3, knows=()))[2]
    told.budget = secretly.budget = None
    assert secretly.local is None
    wanted = PEER(steps=4).reconstruct(told, rng())
    got = PEER(steps=4, probe=20, rates=(0.001, 0.003, 0.01)).reconstruct(secretly, rng())
    assert torch.equal(got.images, wanted.images) and got.info == wanted.info


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_a_wrong_learning_rate_scales_the_update_and_the_local_steps_alike(wrong):
    seen = observed(asked(federation={"steps": 3}))[2]
    (local,) = PEER(assumed_rate=wrong)._guesses(seen.local)
    assert local == replace(seen.local, learning_rate=wrong * seen.local.learning_rate)
    (view,), (true,) = (MODULE.views_of_peers(seen, one) for one in (local, seen.local))
    assert apart(view.gradient, [part / wrong for part in true.gradient]) < 1e-12


def test_labels_are_counted_and_given_ones_are_taken():
    benchmark = asked(batch=12)
    hidden, _, seen = observed(benchmark)
    (view,) = MODULE.views_of_peers(seen, seen.local)
    labels, spent = PEER(dummies=30)._labels(seen, view)
    assert share_named(hidden.labels, labels) == 1.0 and spent == 3
    seen.labels = torch.zeros(12, dtype=torch.long)
    assert PEER()._labels(seen, view) == (seen.labels, 0)


@pytest.mark.parametrize(("side", "start"), [(4, (4, 4)), (8, (8, 8)), (32, (8, 8))])
def test_images_are_searched_at_no_more_than_so_many_pixels_a_side(side, start, monkeypatch):
    seen, sizes = observed(asked(batch=3))[2], []
    monkeypatch.setattr(
        MODULE, "upsampled", lambda x, shape: sizes.append(x.shape[2:]) or x.new_zeros(shape) + x.mean()
    )
    PEER(side=side, steps=2).reconstruct(seen, rng())
    assert set(sizes) == {torch.Size(start)}


def test_upsampling_keeps_what_is_flat_and_overshoots_at_an_edge_as_bicubic_does():
    even = torch.full((2, 1, 4, 4), 0.3)
    torch.testing.assert_close(MODULE.upsampled(even, (2, 1, 16, 16)), torch.full((2, 1, 16, 16), 0.3))
    edge = (torch.arange(8.0) >= 4).float().expand(1, 1, 8, 8)
    got = MODULE.upsampled(edge, (1, 1, 16, 16))
    assert got.shape == (1, 1, 16, 16) and got.min() < 0 and got.max() > 1
    assert MODULE.upsampled(edge, edge.shape) is edge


@pytest.mark.parametrize("budget", [30, 47])
@pytest.mark.parametrize("settings", [{}, {"rates": (0.001, 0.003)}, {"told": False}])
@pytest.mark.parametrize("federation", [{}, {"rounds": 2, "steps": 2}])
def test_no_search_spends_more_than_its_budget(budget, settings, federation):
    seen, passed = observed(asked(federation=federation))[2], []
    seen.model.register_forward_hook(lambda module, given, out: passed.append(-(-len(given[0]) // 6)))
    seen.budget = budget
    PEER(dummies=6, steps=30, probe=4, **settings).reconstruct(seen, rng())
    assert budget / 2 < sum(passed) <= budget


def test_it_comes_nearer_to_its_peers_than_a_search_that_is_told_of_others():
    network = {"name": "lenet_pooled", "width": 16}
    hidden, _, seen = observed(asked(batch=3, network=network))
    assert len(hidden.labels.unique()) == 3
    true, errors = hidden.images[hidden.labels.argsort()], []
    for told in (True, False):
        got = PEER(steps=40, told=told).reconstruct(replace(seen, budget=None), rng())
        errors.append(float((got.images[got.labels.argsort()] - true).square().mean()))
    assert errors[0] < 0.5 * errors[1]


# ---------------------------------------------------------------------------------------------------------------------
# What nobody tells it.


def test_the_control_is_told_the_labels_and_nothing_of_the_update():
    ends = []
    for scale in (1.0, -3.0):
        seen = observed(asked(knows=("local_training", "labels")))[2]
        seen.models = [seen.models[0], {k: v + scale * (v - seen.models[0][k]) for k, v in seen.models[1].items()}]
        ends.append(PEER(steps=3, told=False).reconstruct(seen, rng()).images)
    assert torch.equal(*ends)


def test_other_images_have_the_labels_that_are_asked_for_and_each_comes_once():
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 3])
    public = Public(torch.arange(7.0).view(7, 1, 1, 1), labels)
    wanted = torch.tensor([0, 0, 2, 9])
    places = MODULE.of_labels(public, wanted, rng()).flatten().long()
    assert labels[places[:3]].tolist() == [0, 0, 2] and len(set(places.tolist())) == 4


def test_post_processing_is_given_what_came_out_raw():
    seen = observed(asked(batch=3))[2]
    raw = PEER(steps=3).reconstruct(seen, rng()).images
    seen.prior = lambda images: 1 - images
    restored = PEER(steps=3, post="restorer").reconstruct(seen, rng()).images
    assert torch.equal(restored, 1 - raw)
    filtered = PEER(steps=3, post="mean_filter").reconstruct(seen, rng()).images
    torch.testing.assert_close(filtered[:, :, 3, 3], raw[:, :, 2:5, 2:5].mean((2, 3)))
    assert raw.dtype == torch.float32 and filtered.shape == raw.shape


@pytest.mark.parametrize(
    ("federation", "knows", "reason"),
    [
        ({"share": 0.5}, ("local_training",), "its own part can be taken off"),
        ({"rule": "median"}, ("local_training",), "its own part can be taken off"),
        ({"optimiser": "adam"}, ("local_training",), "only local steps of SGD"),
        ({"batch": 1}, ("local_training",), "only local steps of SGD"),
        ({}, (), "the learning rate is not told"),
        ({}, ("local_training",), None),
    ],
)
def test_where_it_cannot_work_it_says_so(federation, knows, reason):
    said = PEER().skips(asked(federation=federation, knows=knows))
    assert said is None if reason is None else reason in said
    assert PEER(rates=(0.001,)).skips(asked(knows=())) is None


def test_it_works_on_what_a_client_sees_and_on_what_a_server_sees():
    assert contract.accepts(PEER) == (ModelSequence, ModelUpdate)
    _, _, seen = observed(asked("update", federation={"clients": 3}, defence={"secure_aggregation": {}}))
    (view,) = MODULE.views_of_peers(seen, seen.local)
    assert apart(view.update, seen.update) == 0
    seen_by_client = observed(asked())[2]
    (client,) = MODULE.views_of_peers(seen_by_client, seen_by_client.local)
    assert apart(client.update, seen.update) < 1e-9, "of one step, whoever sees it"


def test_what_is_missing_is_named():
    seen = observed(asked(batch=3))[2]
    for post in ("fitted", "ddrm", "semantic", "class_only"):
        with pytest.raises(ValueError, match=f"post: {post} needs public images to train on"):
            PEER(post=post, steps=1, rehearsals=1).reconstruct(seen, rng())
    with pytest.raises(ValueError, match="post: restorer needs public images to train on"):
        PEER(post="restorer", steps=1).reconstruct(seen, rng())
    seen.public = None
    with pytest.raises(ValueError, match="counting labels needs public images"):
        PEER().reconstruct(seen, rng())
    seen.labels = torch.tensor([1, 2, 3])
    with pytest.raises(ValueError, match="a search after other images needs public ones"):
        PEER(told=False).reconstruct(seen, rng())
    seen.local = None
    with pytest.raises(ValueError, match="tells no learning rate"):
        PEER().reconstruct(seen, rng())
