"""Trains the base pocket model from nothing: `python -m training.pocket.train --out DIR --minutes 113`.

Stages: data, tokenizer, autoencoder, latents, denoiser and text encoder, decoder, export. Each is skipped where its
result lies in DIR already, and training stages go on from their last checkpoint: run the same command again to resume.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from diffusers import AutoencoderKL

from training.pocket import captions, data, diffusion, export, tokenizer, vae
from training.pocket.distributed import run_processes

SHARES = {"vae": 0.205, "denoiser": 0.725, "decoder": 0.07}
"""How the training stages share the minutes."""


def _stage(name: str, done: Path, work: Callable[[], object]) -> None:
    if done.exists():
        print(f"{name}: already in {done}", flush=True)
        return
    start = time.monotonic()
    work()
    print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)


def main() -> None:
    """Reads the command line and runs the stages."""
    parser = argparse.ArgumentParser(prog="python -m training.pocket.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, checkpoints and the model")
    parser.add_argument("--minutes", type=float, default=113, help="minutes of training, data and latents apart")
    parser.add_argument("--chunks", type=int, default=32, help=f"training scenes, in chunks of {data.CHUNK}")
    parser.add_argument("--batch", type=int, default=16, help="scenes in a denoiser step of one process, doubled later")
    parser.add_argument("--processes", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random")
    options = parser.parse_args()
    out, processes, seed = options.out, options.processes, options.seed
    rendered, words, first_vae, last_vae = out / "data", out / "tokenizer", out / "vae", out / "vae-polished"
    latents, parts, model = out / "latents.safetensors", out / "parts", out / "model"
    minutes = {name: share * options.minutes for name, share in SHARES.items()}

    _stage(
        "data",
        data.chunk_path(rendered, options.chunks - 1),
        lambda: run_processes(processes, data.make_chunks, rendered, options.chunks, seed),
    )
    _stage("tokenizer", words, lambda: tokenizer.build(captions.all_words(), words))
    _stage("vae", first_vae, lambda: run_processes(processes, vae.train, rendered, minutes["vae"], first_vae, seed))
    if not (out / "vae.txt").exists():
        _report_vae(first_vae, out / "vae.txt", seed)
    _stage("latents", latents, lambda: run_processes(processes, diffusion.prepare, rendered, first_vae, words, latents))
    _stage(
        "denoiser",
        parts,
        lambda: run_processes(
            processes, diffusion.train, latents, words, minutes["denoiser"], options.batch, parts, seed
        ),
    )
    _stage(
        "decoder",
        last_vae,
        lambda: run_processes(
            processes, vae.train_decoder, rendered, latents, first_vae, minutes["decoder"], last_vae, seed
        ),
    )
    _report_vae(last_vae, out / "vae-polished.txt", seed)
    _stage("export", model, lambda: print(f"{export.export(last_vae, parts, words, model)} bytes in {model}"))


def _report_vae(folder: Path, report: Path, seed: int) -> None:
    """Measures the autoencoder on scenes kept out of training and writes the figure beside it."""
    model = AutoencoderKL.from_pretrained(folder).eval()
    line = f"{vae.decibels(model, data.held_out_images(200, seed)):.2f} dB on 200 renders kept out of training"
    report.write_text(line + "\n", encoding="utf-8")
    print(f"{folder.name}: {line}", flush=True)


if __name__ == "__main__":
    main()
