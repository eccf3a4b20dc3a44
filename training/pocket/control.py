"""The depth ControlNet of the base model: a copy of its encoder that reads a depth map (Zhang et al. 2023)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import vae as autoencoder
from training.pocket.data import chunks_of
from training.pocket.diffusion import build_scheduler, draw_timesteps
from training.pocket.distributed import Trainer, flat_then_linear, save_folder
from training.pocket.tokenizer import encode

EMBEDDING = (16, 32, 64)
"""Channels of the depth map's own convolutions; each but the first halves the size: a quarter, as the latents."""
RATE = 8e-4
THING_WEIGHTS = (5.0, 1.0)
"""Extra loss weight of latents that things cover, at the start and at the end of training."""


def build(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet that starts as the UNet's encoder.

    The convolution that ends the depth map's own layers starts at random, not at zero as is usual: behind convolutions
    that do start at zero nothing would be lost, and learning starts much sooner.
    """
    controlnet = ControlNetModel.from_unet(unet, conditioning_channels=3, conditioning_embedding_out_channels=EMBEDDING)
    torch.nn.init.kaiming_normal_(controlnet.controlnet_cond_embedding.conv_out.weight, nonlinearity="linear")
    return controlnet


def prepare(rank: int, world: int, data: Path, base: Path, out: Path) -> None:
    """Stores what training reads in `out` (safetensors), the processes sharing the work.

    latents (scenes, 4, 16, 16) float16 of unit variance, tokens (scenes, captions, length) int16, things
    (scenes, 16, 16) and depths (scenes, 64, 64) uint8 in 255ths.
    """
    vae = AutoencoderKL.from_pretrained(base / "vae").eval()
    tokenizer = CLIPTokenizer.from_pretrained(str(base / "tokenizer"))
    for number, chunk in enumerate(chunks_of(data)):
        if number % world == rank:
            latents = autoencoder.encode(vae, chunk["images"].astype(np.uint8)) * vae.config.scaling_factor
            captions: list[list[str]] = json.loads(str(chunk["captions"]))
            tensors = {
                "latents": latents.half(),
                "tokens": torch.tensor([encode(tokenizer, wordings) for wordings in captions], dtype=torch.int16),
                "things": torch.from_numpy(chunk["things"].astype(np.uint8)),
                "depths": torch.from_numpy(chunk["depths"].astype(np.uint8)),
            }
            save_file(tensors, out.with_name(f"{out.name}-{number:03d}"))
    if world > 1:
        torch.distributed.barrier()
    if rank == 0:
        paths = sorted(out.parent.glob(f"{out.name}-*"))
        parts = [load_file(path) for path in paths]
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, out)
        for path in paths:
            path.unlink()


def as_control(depths: Tensor) -> Tensor:
    """Depth maps (n, rows, columns) in 255ths as the ControlNet reads them: (n, 3, rows, columns) in 0..1."""
    return depths[:, None].float().div(255).expand(-1, 3, -1, -1)


def train(rank: int, world: int, prepared: Path, base: Path, minutes: float, batch: int, out: Path, seed: int) -> None:
    """Trains the ControlNet while UNet and text encoder stay, and saves it in `out` (float32, averaged weights)."""
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(str(base / "tokenizer"))
    unet = UNet2DConditionModel.from_pretrained(base / "unet", dtype=torch.float32).requires_grad_(False)
    text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32).requires_grad_(False)
    controlnet = build(unet).to(memory_format=torch.channels_last)
    unet.to(memory_format=torch.channels_last)
    trainer = Trainer(
        [controlnet], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.5),
        ema_decay=0.998, checkpoint=out.with_suffix(".checkpoint"), seed=seed,
    )  # fmt: skip
    data = load_file(prepared)
    latents, tokens, things, depths = (data[name] for name in ("latents", "tokens", "things", "depths"))
    empty = torch.tensor(encode(tokenizer, [""])[0])
    signal = build_scheduler().alphas_cumprod
    draw = trainer.generator
    recent: list[tuple[float, float]] = []
    while trainer.running:
        chosen = torch.randint(len(latents), (batch,), generator=draw)
        wording = torch.randint(tokens.shape[1], (batch,), generator=draw)
        clean, words = latents[chosen].float(), tokens[chosen, wording].long()
        words[torch.rand(batch, generator=draw) < 0.1] = empty
        timesteps = draw_timesteps(batch, draw)
        noise = torch.randn(clean.shape, generator=draw)
        level = signal[timesteps][:, None, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
        with torch.no_grad():
            context = text_encoder(words).last_hidden_state
        down, middle = controlnet(noisy, timesteps, context, as_control(depths[chosen]), return_dict=False)
        predicted = unet(
            noisy, timesteps, context, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        error = (predicted - velocity).square().mean(1)
        covered = things[chosen] > 50
        extra = THING_WEIGHTS[0] + (THING_WEIGHTS[1] - THING_WEIGHTS[0]) * min(1.0, trainer.progress / 0.9)
        weight = 1 + extra * covered
        trainer.step((error * weight).mean() / weight.mean(), batch)
        plain = error.detach()
        recent.append((float(plain.mean()), float((plain * covered).sum() / covered.sum().clamp(1))))
        trainer.save_every(4)
        if rank == 0 and trainer.steps % 100 == 0:
            whole, on_things = np.mean(recent[-100:], 0)
            print(
                f"control step {trainer.steps} minute {trainer.elapsed / 60:.1f} seen {trainer.seen} "
                f"loss {whole:.4f} on things {on_things:.4f}", flush=True
            )  # fmt: skip
    trainer.save()
    if rank == 0:
        trainer.use_ema()
        save_folder(out, controlnet.save_pretrained)
