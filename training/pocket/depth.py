"""The depth network: a U-Net without noise that answers a picture with its inverse depth, trained on exact renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.pocket import vae as autoencoder
from training.pocket.data import SIZE, chunks_of
from training.pocket.distributed import Trainer, flat_then_linear, save_folder

RATE = 2e-3
THING_WEIGHT = 6.0
"""Extra loss weight of pixels that things cover: most of a picture is ground and sky, which are the same each time."""


def build() -> UNet2DModel:
    """Pictures (n, 3, 64, 64) of -1..1 to inverse depth (n, 1, 64, 64); the timestep it is given means nothing."""
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=1,
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        block_out_channels=(16, 24, 32, 48),
        layers_per_block=1,
        norm_num_groups=4,
        add_attention=False,
    )


def spoil(batch: Tensor, draw: torch.Generator) -> Tensor:
    """Makes pictures as imperfect as generated ones: noise, blur, other contrast and light."""
    count = len(batch)
    noise = torch.randn(batch.shape, generator=draw)
    batch = batch + noise * (0.10 * torch.rand(count, 1, 1, 1, generator=draw))
    batch = batch * (1 + 0.10 * torch.randn(count, 1, 1, 1, generator=draw))
    batch = batch + 0.05 * torch.randn(count, 3, 1, 1, generator=draw)
    if torch.rand((), generator=draw) < 0.3:
        batch = functional.avg_pool2d(functional.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return batch


def train(rank: int, world: int, data: Path, base: Path, minutes: float, batch: int, out: Path, seed: int) -> None:
    """Trains the network on renders, a part of them after a way through the base model's autoencoder; saves it."""
    torch.manual_seed(seed)
    network = build().to(memory_format=torch.channels_last)
    trainer = Trainer(
        [network], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.4, 0.01),
        ema_decay=0.997, checkpoint=out.with_suffix(".checkpoint"), seed=seed,
    )  # fmt: skip
    draw = trainer.generator
    chunks = list(chunks_of(data))
    images = np.concatenate([chunk["images"] for chunk in chunks]).astype(np.uint8)
    depths = torch.from_numpy(np.concatenate([chunk["depths"] for chunk in chunks]).astype(np.uint8))
    ground = depths.min(0).values.float() / 255  # the camera never moves: what nothing covers is the same each time
    chosen = np.arange(0, len(images), 8)
    vae = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).eval()
    again = autoencoder.to_images(autoencoder.decode(vae, autoencoder.encode(vae, images[chosen])))
    images, depths = np.concatenate([images, again]), torch.cat([depths, depths[chosen]])
    recent: list[float] = []
    while trainer.running:
        index = torch.randint(len(images), (batch,), generator=draw)
        pictures, target = autoencoder.to_tensor(images[index.numpy()]), depths[index].float() / 255
        if torch.rand((), generator=draw) < 0.5:
            pictures, target = pictures.flip(3), target.flip(2)
        error = network(spoil(pictures, draw), 0).sample[:, 0] - target
        weight = 1 + THING_WEIGHT * (target > ground + 0.02)
        slopes = error.diff(dim=1).abs().mean() + error.diff(dim=2).abs().mean()
        trainer.step((error.abs() * weight).mean() + slopes, batch)
        recent.append(float(error.detach().abs().mean()))
        trainer.save_every(2)
        if rank == 0 and trainer.steps % 100 == 0:
            print(
                f"depth step {trainer.steps} minute {trainer.elapsed / 60:.1f} seen {trainer.seen} "
                f"mean error {np.mean(recent[-100:]):.4f}", flush=True
            )  # fmt: skip
    trainer.save()
    if rank == 0:
        trainer.use_ema()
        save_folder(out, network.save_pretrained)


@torch.no_grad()
def estimate(network: UNet2DModel, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Inverse depth 0..1, (n, 64, 64), of pictures (n, 64, 64, 3)."""
    parts = [autoencoder.to_tensor(images[start : start + 50]) for start in range(0, len(images), 50)]
    depth: NDArray[np.float32] = torch.cat([network(part, 0).sample[:, 0] for part in parts]).clamp(0, 1).numpy()
    return depth
