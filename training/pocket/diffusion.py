"""The UNet and the text encoder, trained together on latents that are computed once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.pocket import vae as autoencoder
from training.pocket.data import chunks_of
from training.pocket.distributed import Trainer, flat_then_linear, save_folder
from training.pocket.tokenizer import LENGTH, encode

WIDTH = 128
"""Width of the text encoder and of the cross-attention."""
BLOCKS = (48, 96, 128)
RATE = 9e-4
CAPTION_DROPOUT = 0.1
THING_WEIGHTS = (5.0, 1.0)
"""Extra loss weight of latents that things cover, at the start and at the end of training."""


def build_unet() -> UNet2DConditionModel:
    """The denoiser: 16 x 16 x 4 latents, cross-attention at 8 x 8 and 4 x 4 (`attention_head_dim` counts heads)."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=BLOCKS,
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text encoder; the real numbers of the marks matter: 2 would mean an old way of pooling."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=384,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Noise schedule: it ends with so little signal left that even dark and plain pictures start from pure noise."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def prepare(rank: int, world: int, data: Path, vae_folder: Path, tokenizer_folder: Path, out: Path) -> None:
    """Stores latents, tokens and object weights of all scenes in `out` (safetensors), the processes sharing the work.

    latents (scenes, 4, 16, 16) float16 of unit variance, tokens (scenes, captions, LENGTH) int16,
    things (scenes, 16, 16) uint8 in 255ths.
    """
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer_folder))
    chunks = list(data.glob("chunk-*.npz"))
    for number, chunk in enumerate(chunks_of(data)):
        if number % world == rank:
            latents = autoencoder.encode(vae, chunk["images"].astype(np.uint8)) * vae.config.scaling_factor
            captions: list[list[str]] = json.loads(str(chunk["captions"]))
            tokens = [encode(tokenizer, wordings) for wordings in captions]
            save_file(
                {
                    "latents": latents.half(),
                    "tokens": torch.tensor(tokens, dtype=torch.int16),
                    "things": torch.from_numpy(chunk["things"].astype(np.uint8)),
                },
                out.with_name(f"{out.name}-{number:03d}"),
            )
    if world > 1:
        torch.distributed.barrier()
    if rank == 0:
        paths = [out.with_name(f"{out.name}-{number:03d}") for number in range(len(chunks))]
        parts = [load_file(path) for path in paths]
        save_file({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, out)
        for path in paths:
            path.unlink()


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Timesteps 0..999, one from each of `count` equal parts of a density that favours the noisy two thirds.

    Layout, colours and shapes are settled there; the density falls from 1.25 to 0.5 over the cleanest third.
    """
    share = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    grid = torch.linspace(0, 1, 1001)
    density = torch.where(grid < 1 / 3, 0.5 + 0.75 * grid * 3, 1.25)
    cumulative = torch.cumsum(density, 0)
    cumulative = (cumulative - cumulative[0]) / (cumulative[-1] - cumulative[0])
    return (torch.searchsorted(cumulative, share) - 1).clamp(0, 999)


def train(
    rank: int, world: int, prepared: Path, tokenizer_folder: Path, minutes: float, batch: int, out: Path, seed: int
) -> None:
    """Trains UNet and text encoder by velocity prediction and saves both in `out` (float32, averaged weights).

    The batch doubles after a quarter of the time: small batches learn the rough things in fewer samples, large ones are
    computed faster and see less noise in their gradients.
    """
    torch.manual_seed(seed)
    tokenizer = CLIPTokenizer.from_pretrained(str(tokenizer_folder))
    unet, text_encoder = build_unet(), build_text_encoder(tokenizer)
    trainer = Trainer(
        [unet, text_encoder], rank=rank, world=world, minutes=minutes, rate=RATE, schedule=flat_then_linear(0.55),
        ema_decay=0.9985, checkpoint=out.with_suffix(".checkpoint"), seed=seed,
    )  # fmt: skip
    data = load_file(prepared)
    latents, tokens, things = data["latents"], data["tokens"], data["things"]
    empty = torch.tensor(encode(tokenizer, [""])[0])
    signal = build_scheduler().alphas_cumprod
    draw = trainer.generator
    recent: list[float] = []
    by_third: list[list[float]] = [[], [], []]
    while trainer.running:
        size = batch if trainer.progress < 0.25 else 2 * batch
        chosen = torch.randint(len(latents), (size,), generator=draw)
        wording = torch.randint(tokens.shape[1], (size,), generator=draw)
        clean, words = latents[chosen].float(), tokens[chosen, wording].long()
        words[torch.rand(size, generator=draw) < CAPTION_DROPOUT] = empty
        timesteps = draw_timesteps(size, draw)
        noise = torch.randn(clean.shape, generator=draw)
        level = signal[timesteps][:, None, None, None]
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
        context = text_encoder(words).last_hidden_state
        error = (unet(noisy, timesteps, context).sample - velocity).square().mean(1)
        extra = THING_WEIGHTS[0] + (THING_WEIGHTS[1] - THING_WEIGHTS[0]) * min(1.0, trainer.progress / 0.9)
        weight = 1 + extra * (things[chosen] > 50)
        trainer.step((error * weight).mean() / weight.mean(), size)
        plain = error.detach().mean((1, 2))
        recent.append(float(plain.mean()))
        for third in range(3):
            by_third[third] += plain[(timesteps * 3 // 1000) == third].tolist()
        trainer.save_every(4)
        if rank == 0 and trainer.steps % 100 == 0:
            thirds = " ".join(f"{np.mean(values[-500:]):.3f}" for values in by_third)
            print(
                f"unet step {trainer.steps} minute {trainer.elapsed / 60:.1f} seen {trainer.seen} "
                f"loss {np.mean(recent[-100:]):.4f} by thirds {thirds}", flush=True
            )  # fmt: skip
    trainer.save()
    if rank == 0:
        trainer.use_ema()
        save_parts(unet, text_encoder, out)


def save_parts(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, out: Path) -> None:
    """Saves the two models in the subfolders that a pipeline has."""

    def save(folder: Path) -> None:
        unet.save_pretrained(folder / "unet")
        text_encoder.save_pretrained(folder / "text_encoder")

    save_folder(out, save)


def save_checkpoint_as_parts(checkpoint: Path, tokenizer_folder: Path, out: Path) -> None:
    """Saves the averaged weights of a training run that may still be going on."""
    unet = build_unet()
    text_encoder = build_text_encoder(CLIPTokenizer.from_pretrained(str(tokenizer_folder)))
    trainer = Trainer(
        [unet, text_encoder], rank=0, world=1, minutes=1, rate=0, schedule=flat_then_linear(1), ema_decay=0,
        checkpoint=checkpoint, seed=0,
    )  # fmt: skip
    trainer.use_ema()
    save_parts(unet, text_encoder, out)
