"""The two upscalers: how much nearer to a true large render than an interpolated one they are, and how sharp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from diffusers import StableDiffusionLatentUpscalePipeline, StableDiffusionUpscalePipeline

from training.pocket import vae as autoencoder
from training.pocket.enlarge_data import degrade, held_out_pairs
from training.pocket.export import shared_parts
from training.pocket.measures import (
    Figure,
    decibels,
    resized,
    sample,
    sharpness,
    side_by_side,
    through_autoencoder,
)

LARGEST_SHARE = 4
"""How many times fewer pictures are made of 512 pixels: they take 16 times as long as those of 128."""


def judge_x2(folder: Path, *, count: int, seed: int, steps: int, sheet: Path | None = None) -> list[Figure]:
    """Ceiling: the large render through the autoencoder. Baseline: decoded small, then enlarged by Lanczos.

    `folder` is the family's; it uses base/ and x2/.
    """
    parts = shared_parts(folder / "base")
    pipeline = StableDiffusionLatentUpscalePipeline.from_pretrained(folder / "x2", **parts)
    pipeline.set_progress_bar_config(disable=True)
    vae = pipeline.vae
    small, large, prompts = held_out_pairs(count, seed, 64, 128)
    latents = autoencoder.encode(vae, small) * vae.config.scaling_factor
    drawn = sample(pipeline, prompts, seed=seed, image=latents, num_inference_steps=steps, guidance_scale=1.0)
    lanczos = resized(through_autoencoder(vae, small), 128)
    best = through_autoencoder(vae, large)
    if sheet:
        side_by_side([small, lanczos, drawn, large], sheet / "x2.png")
    value, plain = decibels(drawn, large), decibels(lanczos, large)
    ceiling = decibels(best, large)
    return [
        Figure("PSNR, dB", value, ceiling=ceiling, baseline=plain),
        Figure("PSNR above Lanczos, dB", value - plain, 1.5, ceiling=ceiling - plain, baseline=0.0),
        Figure("sharpness of edges", sharpness(drawn, large), ceiling=sharpness(best, large),
               baseline=sharpness(lanczos, large)),
    ]  # fmt: skip


def judge_x4(
    folder: Path, *, count: int, seed: int, steps: int, noise_level: int, sheet: Path | None = None
) -> list[Figure]:
    """Ceiling: the large render through the autoencoder. Baseline: the spoiled small picture enlarged by Lanczos.

    `folder` is the family's; it uses base/ and x4/.
    """
    pipeline = StableDiffusionUpscalePipeline.from_pretrained(folder / "x4", **shared_parts(folder / "base"))
    pipeline.set_progress_bar_config(disable=True)
    figures = []
    for size, number in ((64, count), (128, max(1, count // LARGEST_SHARE))):
        small, large, prompts = held_out_pairs(number, seed, size, 4 * size)
        rng = np.random.default_rng((seed, 6 << 20))
        spoiled = np.stack([degrade(image, rng) for image in small])
        drawn = sample(
            pipeline, prompts, seed=seed, batch=640 // size, image=(autoencoder.to_tensor(spoiled) + 1) / 2,
            num_inference_steps=steps, guidance_scale=1.0, noise_level=noise_level,
        )  # fmt: skip
        lanczos, best = resized(spoiled, 4 * size), through_autoencoder(pipeline.vae, large)
        name = f"{size} to {4 * size} pixels"
        if sheet:
            side_by_side([spoiled, lanczos, drawn, large], sheet / f"x4-{size}.png", most=8)
        value, plain, ceiling = (decibels(images, large) for images in (drawn, lanczos, best))
        figures += [
            Figure(f"{name}: PSNR, dB", value, ceiling=ceiling, baseline=plain),
            Figure(f"{name}: PSNR above Lanczos, dB", value - plain, 1.0, ceiling=ceiling - plain, baseline=0.0),
            Figure(f"{name}: sharpness of edges", sharpness(drawn, large), ceiling=sharpness(best, large),
                   baseline=sharpness(lanczos, large)),
        ]  # fmt: skip
    return figures
