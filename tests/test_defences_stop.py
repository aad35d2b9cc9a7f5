"""Every defence against an attack that it is known to stop, and one that it is known to leave.

The attack is closed: of one image, a linear layer's gradient is dW = db x', so that dW / db reads its input off (Phong
et al. 2018). Of the first layer that is the image, of the last one the features.
"""

from __future__ import annotations

import pytest
import torch
from test_defences import asked
from torch import Tensor, nn
from toys import ROOT, observed

NETWORK = {"name": "mlp", "width": 64}


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def seen_under(defence: dict | None, **more):
    """(the images, what is seen of them) of a network whose first layer is linear."""
    hidden, _, seen = observed(asked("gradient", defence, **{"batch": 1, "network": NETWORK, **more}))
    return hidden.images.flatten(1), seen


def read(seen, place: int) -> Tensor:
    """The input of the linear layer at this place, by the unit whose bias moved most."""
    slopes = dict(zip((name for name, _ in seen.model.named_parameters()), seen.gradient, strict=True))
    layers = [name for name, module in seen.model.named_modules() if isinstance(module, nn.Linear)]
    weight, bias = slopes[f"{layers[place]}.weight"], slopes[f"{layers[place]}.bias"]
    unit = bias.abs().argmax()
    return (weight[unit] / bias[unit]).nan_to_num(0.0, 0.0, 0.0)


def error(defence: dict | None) -> float:
    """The mean squared error of the image that is read."""
    images, seen = seen_under(defence)
    return float((read(seen, 0) - images[0]).square().mean())


GONE = 0.05  # 13 dB
STOPPED = {
    "gaussian_noise": {"deviation": 0.1},
    "laplacian_noise": {"deviation": 0.1},
    "pruning": {"share": 0.999},
    "quantisation": {"bits": 2},
    "layer_clipping": {"norm": 1e-3},
    "dp_sgd": {"norm": 1.0, "multiplier": 1.0},
}
LEFT = {
    "gaussian_noise": {"deviation": 1e-7},
    "pruning": {"share": 0.0},
    "half_precision": {},
    "quantisation": {"bits": 16},
    "clipping": {"norm": 1e-3},
    "dp_sgd": {"norm": 1e-3, "multiplier": 0.0},
    "soteria": {"share": 0.8},
    "precode": {"width": 16},
}


def test_without_a_defence_the_image_is_read_off():
    assert error(None) < 1e-8


@pytest.mark.parametrize("name", STOPPED)
def test_a_defence_that_stops_it(name):
    """Nobody sees an image in what is read."""
    assert error({name: STOPPED[name]}) > GONE


def test_pruning_of_nine_tenths_stops_it_as_little_as_clipping():
    """What it leaves is what is largest, of the very unit that is read: it stops searches before it stops this."""
    assert error({"pruning": {"share": 0.9}}) < GONE / 10


@pytest.mark.parametrize("name", LEFT)
def test_a_defence_that_leaves_it(name):
    """Weak ones; those that change a length alone; and those of the last layer, where the first one is linear too."""
    assert error({name: LEFT[name]}) < 1e-4


def test_clipping_stops_a_squared_distance_and_not_a_direction():
    """The true image is no least squared distance any more, and still the least angle."""
    (_, plain), (_, seen) = seen_under(None), seen_under({"clipping": {"norm": 1e-3}})
    true, got = (torch.cat([part.flatten() for part in one.gradient]) for one in (plain, seen))
    assert float((true - got).square().sum()) > 0.9 * float(true.square().sum())
    assert float(torch.cosine_similarity(true, got, dim=0)) > 1 - 1e-6


def test_soteria_hides_the_share_of_the_features_that_it_says():
    """Read off the last layer; hidden ones are 0, where they are not without it."""
    _, plain = seen_under(None)
    _, seen = seen_under({"soteria": {"share": 0.8}})
    before, after = read(plain, -1), read(seen, -1)
    hidden = (after == 0) & (before != 0)
    assert int(hidden.sum()) >= round(0.7 * int((before != 0).sum()))
    torch.testing.assert_close(after[~hidden], before[~hidden])


def test_precode_hides_the_features_behind_a_draw():
    """What is read off the last layer is drawn anew with every trial's victim, and not what an attacker's copy has."""
    images, seen = seen_under({"precode": {"width": 16}})
    got, inputs = read(seen, -1), []
    last = [module for module in seen.model.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()[0]))
    seen.model(images.view(seen.shape))
    assert not torch.allclose(got, inputs[0], rtol=1e-3)
    torch.testing.assert_close(read(seen_under({"precode": {"width": 16}})[1], -1), got)


def test_a_sum_over_clients_mixes_their_images():
    """None of four is read off, as none of a batch of four is; of one client alone, its image is."""
    spec = {"clients": 4, "learning_rate": 0.1}
    images, seen = seen_under({"secure_aggregation": {}}, batch=4, federation=spec)
    _, batch = seen_under(None, batch=4)
    got = read(seen, 0)
    torch.testing.assert_close(got, read(batch, 0), rtol=1e-3, atol=1e-4)
    assert float((got - images).square().mean(1).min()) > 1e-3
