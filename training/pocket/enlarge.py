"""The two upscalers: x2 from latents to latents, x4 from pixels to latents. Each UNet sees the small picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket import vae as autoencoder
from training.pocket.data import chunks_of
from training.pocket.diffusion import WIDTH, build_scheduler
from training.pocket.distributed import Trainer, flat_then_linear, save_folder
from training.pocket.enlarge_data import degrade
from training.pocket.tokenizer import encode

RATE = 8e-4
CROP = 32
"""Latent cells of the large picture, across and down, that a training step sees."""
CAPTION_DROPOUT = 0.5
"""The small picture says nearly all: half of the time the words say nothing, so that a prompt may be left out."""
DECODED = 4
"""One of so many samples is decoded in a training step, and held against the true picture besides its latents."""
PIXEL_WEIGHT = 20.0
"""How much the decoded pictures' error counts: a good answer's is about a twentieth of that of its latents."""
NOISE_EMBED = 64
"""Numbers that tell the x2 pipeline's noise level (always none), and as many zeros."""
MAX_NOISE_LEVEL = 100
"""The strongest noise that the x4 pipeline may put on the small picture, in steps of `build_low_res_scheduler`."""


class Pair(NamedTuple):
    """Pictures of one scene at two sizes, prepared for training."""

    small: str
    large: str


X2_PAIRS = (Pair("latents-64", "latents-128"), Pair("latents-128", "latents-256"))
X4_PAIRS = (Pair("images-64", "latents-256"), Pair("images-128", "latents-512"))


def build_x2_unet() -> UNet2DConditionModel:
    """Noisy latents beside the small ones (8 channels) to 5: the fifth is a variance that the pipeline drops."""
    return UNet2DConditionModel(
        sample_size=32,
        in_channels=8,
        out_channels=5,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        time_embedding_type="fourier",
        time_cond_proj_dim=2 * NOISE_EMBED + WIDTH,
    )


def build_x4_unet() -> UNet2DConditionModel:
    """Noisy latents beside the small picture's pixels (7 channels) to 4; the class is the picture's noise level."""
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=7,
        out_channels=4,
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
        num_class_embeds=MAX_NOISE_LEVEL + 1,
    )


def build_x2_scheduler() -> EulerDiscreteScheduler:
    """Noise levels from 0.03 to 14.6; the pipeline itself makes the model's answer a clean picture.

    Steps always start at the strongest noise and end above the weakest: with the usual spacing a single step would
    start at the weakest, from latents that hold nothing, and the last of several would be spent on next to no noise.
    """
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="original_sample",
        timestep_spacing="trailing",
    )


def build_low_res_scheduler() -> DDPMScheduler:
    """How the x4 pipeline puts noise on the small picture, to hide its faults."""
    return DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear")


def prepare(rank: int, world: int, data: Path, base: Path, out: Path) -> None:
    """Stores, for each chunk, what training reads in the folder `out`: `NUMBER.safetensors`.

    images-SIZE (scenes, SIZE, SIZE, 3) uint8, latents-SIZE (scenes, 4, SIZE / 4, SIZE / 4) float16 of unit variance,
    tokens (scenes, captions, length) int16.
    """
    vae = AutoencoderKL.from_pretrained(base / "vae").eval()
    tokenizer = CLIPTokenizer.from_pretrained(str(base / "tokenizer"))
    out.mkdir(parents=True, exist_ok=True)
    for number, chunk in enumerate(chunks_of(data)):
        path = out / f"{number:03d}.safetensors"
        if number % world != rank or path.exists():
            continue
        captions: list[list[str]] = json.loads(str(chunk["captions"]))
        tensors = {"tokens": torch.tensor([encode(tokenizer, wordings) for wordings in captions], dtype=torch.int16)}
        for name in [name for name in chunk if name.startswith("images-")]:
            images = chunk[name].astype(np.uint8)
            latents = autoencoder.encode(vae, images) * vae.config.scaling_factor
            tensors[name], tensors[name.replace("images", "latents")] = torch.from_numpy(images), latents.half()
        partial = path.with_suffix(".partial")
        save_file(tensors, partial)
        partial.rename(path)


class _Examples:
    """Draws crops of pairs, of each kind equally often: the largest are few, and the hardest to learn."""

    def __init__(self, folder: Path, pairs: tuple[Pair, ...], draw: torch.Generator) -> None:
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        self.draw = draw
        # Few chunks may hold no scene of the largest size.
        held = {pair: [file for file in files if pair.small in file and pair.large in file] for pair in pairs}
        self.pairs = [pair for pair in pairs if held[pair]]
        self.parts = [
            tuple(
                torch.cat([file[name] for file in held[pair]])
                for name in (pair.small, pair.large, pair.large.replace("latents", "images"), "tokens")
            )
            for pair in self.pairs
        ]

    def batch(self, count: int, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Small pictures, large latents, tokens, and of every `DECODED`th the large picture in -1..1.

        They are crops of `cells` large cells where the large picture is larger.
        """
        which = int(torch.randint(len(self.parts), (1,), generator=self.draw))
        small, large, images, tokens = self.parts[which]
        # Large cells for each small cell (x2), or for each small pixel (x4).
        factor = 2 if self.pairs[which].small.startswith("latents") else 1
        width = min(cells, large.shape[-1])
        chosen = torch.randint(len(tokens), (count,), generator=self.draw)
        wording = torch.randint(tokens.shape[1], (count,), generator=self.draw)
        smalls, larges, pictures = [], [], []
        for place, number in enumerate(chosen.tolist()):
            top, left = (
                int(torch.randint((large.shape[-1] - width) // factor + 1, (1,), generator=self.draw)) for _ in "yx"
            )
            view = (slice(top, top + width // factor), slice(left, left + width // factor))
            item = small[number]
            smalls.append(item[:, *view].float() if factor == 2 else item[view])
            top, left = top * factor, left * factor
            larges.append(large[number, :, top : top + width, left : left + width].float())
            if place % DECODED == DECODED - 1:
                cell = images.shape[1] // large.shape[-1]
                view = (slice(top * cell, (top + width) * cell), slice(left * cell, (left + width) * cell))
                pictures.append(images[number][view])
        true = autoencoder.to_tensor(torch.stack(pictures).numpy())
        return torch.stack(smalls), torch.stack(larges), tokens[chosen, wording].long(), true


def x2_inputs(noisy: Tensor, sigma: Tensor, small: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the x2 pipeline gives its UNet: input, timestep, and what is known of the timestep besides."""
    level = sigma[:, None, None, None]
    near = functional.interpolate(small, scale_factor=2, mode="nearest")
    noise_embed = torch.cat([torch.ones(len(pooled), NOISE_EMBED), torch.zeros(len(pooled), NOISE_EMBED)], 1)
    return (
        torch.cat([noisy / (level.square() + 1).sqrt(), near], 1),
        sigma.log() * 0.25,
        torch.cat([noise_embed, pooled], 1),
    )


def x2_target(noisy: Tensor, sigma: Tensor, clean: Tensor) -> Tensor:
    """The UNet's answer (n, 4, rows, columns) of which the x2 pipeline makes exactly the clean latents."""
    level = sigma[:, None, None, None]
    return (clean - noisy / (level.square() + 1)) * (level.square() + 1).sqrt() / level


def x2_clean(noisy: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
    """The clean latents that the x2 pipeline makes of the UNet's answer: the reverse of `x2_target`."""
    level = sigma[:, None, None, None]
    return output * level / (level.square() + 1).sqrt() + noisy / (level.square() + 1)


def train_x2(
    rank: int, world: int, prepared: Path, base: Path, minutes: float, batch: int, out: Path, seed: int
) -> None:
    """Trains the x2 UNet with the preconditioning of Karras et al. (2022) that the pipeline has, and saves it."""
    torch.manual_seed(seed)
    unet = build_x2_unet()
    trainer = Trainer(
        [unet], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.4),
        ema_decay=0.998, checkpoint=out.with_suffix(".checkpoint"), seed=seed,
    )  # fmt: skip
    draw = trainer.generator
    examples, words_of, decoder = _Examples(prepared, X2_PAIRS, draw), _Words(base, draw), _Decoder(base)
    recent: list[float] = []
    while trainer.running:
        small, clean, tokens, pictures = examples.batch(batch, CROP)
        # Latents that a model made are never quite those of a render.
        small = small + 0.08 * torch.rand(batch, 1, 1, 1, generator=draw) * torch.randn(small.shape, generator=draw)
        words = words_of(tokens)
        sigma = (torch.randn(batch, generator=draw) * 1.4 + 0.4).exp().clamp(0.02, 16)
        level = sigma[:, None, None, None]
        noisy = clean + level * torch.randn(clean.shape, generator=draw)
        inputs, timestep, condition = x2_inputs(noisy, sigma, small, words.pooler_output)
        states = words.hidden_states[-1]
        output = unet(inputs, timestep, encoder_hidden_states=states, timestep_cond=condition).sample[:, :-1]
        shown = decoder(x2_clean(noisy, sigma, output)[DECODED - 1 :: DECODED])
        loss = _difference(output, x2_target(noisy, sigma, clean)) + PIXEL_WEIGHT * (shown - pictures).square().mean()
        trainer.step(loss, batch)
        recent.append(float(loss.detach()))
        _tell("x2", trainer, rank, recent)
    trainer.save()
    if rank == 0:
        trainer.use_ema()
        save_folder(out, unet.save_pretrained)


def train_x4(
    rank: int, world: int, prepared: Path, base: Path, minutes: float, batch: int, out: Path, seed: int
) -> None:
    """Trains the x4 UNet by velocity prediction on degraded small pictures, and saves it."""
    torch.manual_seed(seed)
    unet = build_x4_unet()
    trainer = Trainer(
        [unet], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.4),
        ema_decay=0.998, checkpoint=out.with_suffix(".checkpoint"), seed=seed,
    )  # fmt: skip
    draw = trainer.generator
    examples, words_of, decoder = _Examples(prepared, X4_PAIRS, draw), _Words(base, draw), _Decoder(base)
    signal, low_signal = build_scheduler().alphas_cumprod, build_low_res_scheduler().alphas_cumprod
    rng = np.random.default_rng((seed, rank, trainer.steps))
    recent: list[float] = []
    while trainer.running:
        pixels, clean, tokens, pictures = examples.batch(batch, CROP)
        spoiled = np.stack([degrade(image, rng) for image in pixels.numpy()])
        small = autoencoder.to_tensor(spoiled).contiguous()
        # Weak noise is what the model is used with, and what it learns most from.
        noise_level = (torch.rand(batch, generator=draw).square() * (MAX_NOISE_LEVEL + 1)).long()
        level = low_signal[noise_level][:, None, None, None]
        small = level.sqrt() * small + (1 - level).sqrt() * torch.randn(small.shape, generator=draw)
        states = words_of(tokens).last_hidden_state
        # Much noise more often than little: the model is used with a step or two, the first from noise alone.
        share = ((torch.arange(batch) + torch.rand(batch, generator=draw)) / batch).sqrt()
        timesteps = (share * 1000).long().clamp(0, 999)
        level = signal[timesteps][:, None, None, None]
        noise = torch.randn(clean.shape, generator=draw)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
        inputs = torch.cat([noisy, small], 1)
        output = unet(inputs, timesteps, encoder_hidden_states=states, class_labels=noise_level).sample
        shown = decoder((level.sqrt() * noisy - (1 - level).sqrt() * output)[DECODED - 1 :: DECODED])
        loss = _difference(output, velocity) + PIXEL_WEIGHT * (shown - pictures).square().mean()
        trainer.step(loss, batch)
        recent.append(float(loss.detach()))
        _tell("x4", trainer, rank, recent)
    trainer.save()
    if rank == 0:
        trainer.use_ema()
        save_folder(out, unet.save_pretrained)


class _Words:
    """The text encoder, with captions left out at random."""

    def __init__(self, base: Path, draw: torch.Generator) -> None:
        tokenizer = CLIPTokenizer.from_pretrained(str(base / "tokenizer"))
        self.empty = torch.tensor(encode(tokenizer, [""])[0])
        self.text_encoder = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32)
        self.draw = draw

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Any:
        """Its output: the x2 pipeline takes the states before the last norm and the pooled one, x4 those after it."""
        tokens = torch.where(torch.rand(len(tokens), 1, generator=self.draw) < CAPTION_DROPOUT, self.empty, tokens)
        return self.text_encoder(tokens, output_hidden_states=True)


class _Decoder:
    """The decoder of the base model, which does not learn: from latents of unit variance to pixels in -1..1."""

    def __init__(self, base: Path) -> None:
        self.vae = AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32).requires_grad_(False)
        self.vae.to(memory_format=torch.channels_last)

    def __call__(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return pixels


def _difference(output: Tensor, target: Tensor) -> Tensor:
    """Mean square error, and that of broad colours again: small errors in them are seen first, and cost most PSNR."""
    error = output - target
    return error.square().mean() + 4 * functional.avg_pool2d(error, 4).square().mean()


def _tell(name: str, trainer: Trainer, rank: int, recent: list[float]) -> None:
    trainer.save_every(4)
    if rank == 0 and trainer.steps % 100 == 0:
        print(
            f"{name} step {trainer.steps} minute {trainer.elapsed / 60:.1f} seen {trainer.seen} "
            f"loss {np.mean(recent[-200:]):.4f}", flush=True
        )  # fmt: skip
