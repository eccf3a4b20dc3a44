"""The autoencoder: pictures of 64 x 64 x 3 to latents of 16 x 16 x 4 and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from training.pocket.data import chunks_of, load_images
from training.pocket.distributed import Trainer, flat_then_linear, save_folder

BLOCKS = (16, 48, 64)
LATENT_STD = 12.0
SCALING_FACTOR = 0.08333
"""What the x4 upscaling pipeline of diffusers presumes of every autoencoder: so latents get a deviation of 12."""
CROP = 32
RATE = 2e-3
STYLE_WEIGHTS = {"pixel art": 3.0, "pencil sketch": 2.0, "cartoon": 1.5}
"""How much more often the decoder's last training sees styles with fine structure, which it learns last."""


def build() -> AutoencoderKL:
    """A new autoencoder, with a posterior that starts narrow: with the usual wide one learning starts very late."""
    depth = len(BLOCKS)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=BLOCKS,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=SCALING_FACTOR,
        force_upcast=False,
    )
    with torch.no_grad():
        vae.quant_conv.weight[:4] *= 2
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0
    return vae


def to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """Pictures (n, rows, columns, 3) of 0..255 as (n, 3, rows, columns) of -1..1, channels last in memory."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return tensor.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def to_images(tensor: Tensor) -> NDArray[np.uint8]:
    """The reverse of `to_tensor`."""
    image: NDArray[np.uint8] = ((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return image


def _batch(images: NDArray[np.uint8], size: int, count: int, rng: np.random.Generator) -> Tensor:
    chosen = rng.integers(0, len(images), count)
    if size == images.shape[1]:
        batch = images[chosen]
    else:
        corners = rng.integers(0, images.shape[1] - size + 1, (count, 2))
        batch = np.stack([images[n, y : y + size, x : x + size] for n, (y, x) in zip(chosen, corners, strict=True)])
    return to_tensor(batch[:, :, ::-1] if rng.random() < 0.5 else batch)


def difference(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (absolute error, of the slopes too, so that edges stay sharp, and square error), and the square error."""
    error = output - target
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    square = error.square().mean()
    return error.abs().mean() + 0.5 * slopes + 2 * square, square


def train(rank: int, world: int, data: Path, minutes: float, out: Path, seed: int) -> None:
    """Trains the autoencoder and saves it in `out`: first on crops, which are cheap, then on whole pictures."""
    torch.manual_seed(seed)
    vae = build().to(memory_format=torch.channels_last)
    trainer = Trainer(
        [vae], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.35),
        ema_decay=0.997, checkpoint=out.with_suffix(".checkpoint"), seed=seed, betas=(0.9, 0.98), weight_decay=1e-4,
    )  # fmt: skip
    images = load_images(data)
    rng = np.random.default_rng((seed, rank, trainer.steps))
    recent: list[float] = []
    while trainer.running:
        batch = _batch(images, CROP, 16, rng) if trainer.progress < 0.5 else _batch(images, images.shape[1], 8, rng)
        posterior = vae.encode(batch).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=trainer.generator)
        loss, square = difference(vae.decode(latents).sample, batch)
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        trainer.step(loss + 2e-4 * divergence, len(batch))
        recent.append(float(square.detach()))
        trainer.save_every(3)
        if rank == 0 and trainer.steps % 100 == 0:
            decibels = -10 * np.log10(np.mean(recent[-100:]) / 4)
            print(
                f"vae step {trainer.steps} minute {trainer.elapsed / 60:.1f} seen {trainer.seen} "
                f"train {decibels:.2f} dB divergence {float(divergence.detach()):.2f}", flush=True
            )  # fmt: skip
    trainer.save()
    trainer.use_ema()
    if rank == 0:
        normalise_latents(vae, images[:: max(1, len(images) // 2000)])
        save_folder(out, vae.save_pretrained)


@torch.no_grad()
def encode(vae: AutoencoderKL, images: NDArray[np.uint8]) -> Tensor:
    """Means of the posteriors, not scaled, (n, 4, rows / 4, columns / 4)."""
    parts = [vae.encode(to_tensor(images[start : start + 50])).latent_dist.mean for start in range(0, len(images), 50)]
    return torch.cat(parts).contiguous()


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures in -1..1 from latents that are not scaled."""
    parts = [vae.decode(latents[start : start + 50]).sample for start in range(0, len(latents), 50)]
    return torch.cat(parts)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, images: NDArray[np.uint8]) -> None:
    """Folds an affine map per channel into the convolutions beside the latents: mean 0, deviation `LATENT_STD`.

    The pictures stay the same; `SCALING_FACTOR` then truly gives latents of unit variance.
    """
    latents = encode(vae, images)
    mean, scale = latents.mean((0, 2, 3)), LATENT_STD / latents.std((0, 2, 3))
    into, back = vae.quant_conv, vae.post_quant_conv
    into.weight[:4] *= scale[:, None, None, None]
    into.bias[:4] = (into.bias[:4] - mean) * scale
    into.bias[4:] += 2 * scale.log()
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight /= scale[None, :, None, None]


@torch.no_grad()
def decibels(vae: AutoencoderKL, images: NDArray[np.uint8]) -> float:
    """Mean over pictures of the PSNR after a way through the autoencoder."""
    target = to_tensor(images)
    output = decode(vae, encode(vae, images)).clamp(-1, 1)
    square = (output - target).square().mean((1, 2, 3))
    return float((10 * torch.log10(4 / square)).mean())


def train_decoder(
    rank: int, world: int, data: Path, prepared: Path, vae_folder: Path, minutes: float, out: Path, seed: int
) -> None:
    """Trains the decoder alone on for a few minutes and saves the autoencoder in `out`.

    The encoder stays, so latents and everything that was trained on them stay true. A little noise on the latents
    makes the decoder forgive small errors of the denoiser.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKL.from_pretrained(vae_folder).to(memory_format=torch.channels_last)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    trainer = Trainer(
        [vae], rank=rank, world=world, minutes=minutes, rate=RATE / 2, schedule=flat_then_linear(0.1, 0.01),
        ema_decay=0.995, checkpoint=out.with_suffix(".checkpoint"), seed=seed, betas=(0.9, 0.98), weight_decay=1e-4,
    )  # fmt: skip
    images, latents = load_images(data), load_file(prepared)["latents"]
    styles = [scene["style"] for chunk in chunks_of(data) for scene in json.loads(str(chunk["scenes"]))]
    chances = np.array([STYLE_WEIGHTS.get(style, 1.0) for style in styles])
    chances /= chances.sum()
    rng = np.random.default_rng((seed, rank, trainer.steps))
    while trainer.running:
        chosen = rng.choice(len(images), 8, p=chances)
        target = to_tensor(images[chosen])
        clean = latents[torch.from_numpy(chosen)].float()
        noisy = clean + 0.03 * torch.randn(clean.shape, generator=trainer.generator)
        loss, square = difference(vae.decode(noisy / SCALING_FACTOR).sample, target)
        trainer.step(loss, len(chosen))
        trainer.save_every(2)
        if rank == 0 and trainer.steps % 100 == 0:
            decibels = -10 * np.log10(float(square.detach()) / 4)
            print(f"decoder step {trainer.steps} minute {trainer.elapsed / 60:.1f} train {decibels:.2f} dB", flush=True)
    trainer.save()
    if rank == 0:
        trainer.use_ema()
        save_folder(out, vae.save_pretrained)
