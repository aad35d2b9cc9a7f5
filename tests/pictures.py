"""Images that several score tests share."""

from __future__ import annotations

import torch


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_images(count, seed, channels=3, side=16):
    return torch.rand(count, channels, side, side, generator=generator(seed))


def astronaut_crops(count, side, seed):
    """Real crops and noisy copies of them, float32. -> two (B, 3, side, side)"""
    from skimage.data import astronaut

    photo = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    corners = torch.randint(0, 512 - side, (count, 2), generator=generator(seed)).tolist()
    true = torch.stack([photo[:, top : top + side, left : left + side] for top, left in corners])
    noise = 0.1 * torch.randn(true.shape, generator=generator(seed + 1))
    return true, (true + noise).clamp(0, 1)


def pairs_of_images(kind, side):
    if kind == "real":
        return astronaut_crops(4, side, seed=3)
    channels = 1 if kind == "grey" else 3
    return random_images(4, 1, channels, side), random_images(4, 2, channels, side)


# --- metrics ---
