"""The depth network: a small Depth Anything (Yang et al. 2024), trained on the exact depth of renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from training.pocket import vae as autoencoder
from training.pocket.data import SIZE, chunks_of
from training.pocket.distributed import Trainer, flat_then_linear, save_folder

PATCH = 4
WIDTH = 96
RATE = 1e-3


def build() -> DepthAnythingForDepthEstimation:
    """Pictures (n, 3, 64, 64) of -1..1 to inverse depth (n, 64, 64)."""
    backbone = Dinov2Config(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        mlp_ratio=2,
        out_features=["stage2", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    network = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=PATCH,
            reassemble_hidden_size=WIDTH,
            reassemble_factors=[2, 1],
            neck_hidden_sizes=[32, 64],
            fusion_hidden_size=32,
            head_hidden_size=16,
            head_in_index=-1,
            depth_estimation_type="relative",
        )
    )
    # The network ends in a ReLU: an answer that started at zero would have no slope to learn from.
    torch.nn.init.constant_(network.head.conv3.bias, 0.3)
    return network


def spoil(batch: Tensor, draw: torch.Generator) -> Tensor:
    """Makes pictures as imperfect as generated ones: noise, blur, other contrast and light."""
    count = len(batch)
    noise = torch.randn(batch.shape, generator=draw)
    batch = batch + noise * (0.10 * torch.rand(count, 1, 1, 1, generator=draw))
    batch = batch * (1 + 0.10 * torch.randn(count, 1, 1, 1, generator=draw))
    batch = batch + 0.05 * torch.randn(count, 3, 1, 1, generator=draw)
    if torch.rand((), generator=draw) < 0.4:
        batch = functional.avg_pool2d(functional.pad(batch, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return batch


def train(rank: int, world: int, data: Path, base: Path, minutes: float, batch: int, out: Path, seed: int) -> None:
    """Trains the network on renders, a part of them after a way through the base model's autoencoder; saves it."""
    torch.manual_seed(seed)
    network = build()
    trainer = Trainer(
        [network], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.3, 0.01),
        ema_decay=0.998, checkpoint=out.with_suffix(".checkpoint"), seed=seed,
    )  # fmt: skip
    draw = trainer.generator
    chunks = list(chunks_of(data))
    images = np.concatenate([chunk["images"] for chunk in chunks]).astype(np.uint8)
    depths = torch.from_numpy(np.concatenate([chunk["depths"] for chunk in chunks]).astype(np.uint8))
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
        error = network(spoil(pictures, draw).contiguous()).predicted_depth - target
        slopes = error.diff(dim=1).abs().mean() + error.diff(dim=2).abs().mean()
        trainer.step(error.abs().mean() + slopes, batch)
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
def estimate(network: DepthAnythingForDepthEstimation, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Inverse depth (n, 64, 64) of pictures (n, 64, 64, 3), the least as 0 and the greatest as 1 in each picture."""
    parts = [autoencoder.to_tensor(images[start : start + 50]).contiguous() for start in range(0, len(images), 50)]
    depth = torch.cat([network(part).predicted_depth for part in parts])
    least, greatest = depth.amin((1, 2), keepdim=True), depth.amax((1, 2), keepdim=True)
    scaled: NDArray[np.float32] = ((depth - least) / (greatest - least).clamp(1e-6)).numpy()
    return scaled
