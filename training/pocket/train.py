"""Trains a pocket model: `python -m training.pocket.train base|depth|controlnet|x2|x4 --out DIR --minutes M`.

A model is made in stages: data, latents and the like, training, export. Each is skipped where its result lies in DIR
already, and training goes on from its last checkpoint: run the same command again to resume. All models but the base
take its parts from `--base`; they share rendered data where they can, so one DIR may serve them all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diffusers import AutoencoderKL

from training.pocket import (
    captions,
    control,
    control_data,
    data,
    depth,
    diffusion,
    enlarge,
    enlarge_data,
    export,
    tokenizer,
    vae,
)
from training.pocket.distributed import run_processes

SHARES = {"vae": 0.205, "denoiser": 0.725, "decoder": 0.07}
"""How the training stages of the base model share the minutes."""
MINUTES = {"base": 113.0, "depth": 16.0, "controlnet": 90.0, "x2": 175.0, "x4": 300.0}
"""How long each model trains unless told otherwise."""
CHUNKS = {"base": 32, "depth": 20, "controlnet": 20, "x2": 48, "x4": 48}


def _stage(name: str, done: Sequence[Path], work: Callable[[], object]) -> None:
    if all(path.exists() for path in done):
        print(f"{name}: already in {done[-1]}", flush=True)
        return
    start = time.monotonic()
    work()
    print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)


def _chunk_paths(folder: Path, chunks: int) -> list[Path]:
    return [data.chunk_path(folder, number) for number in range(chunks)]


def train_base(out: Path, minutes: float, chunks: int, batch: int, processes: int, seed: int) -> None:
    """Runs all stages of the base model: data, tokenizer, autoencoder, latents, denoiser, decoder, export."""
    rendered, words, first_vae, last_vae = out / "data", out / "tokenizer", out / "vae", out / "vae-polished"
    latents, parts, model = out / "latents.safetensors", out / "parts", out / "model"
    share = {name: share * minutes for name, share in SHARES.items()}

    _stage(
        "data",
        _chunk_paths(rendered, chunks),
        lambda: run_processes(processes, data.make_chunks, rendered, chunks, seed),
    )
    _stage("tokenizer", [words], lambda: tokenizer.build(captions.all_words(), words))
    _stage("vae", [first_vae], lambda: run_processes(processes, vae.train, rendered, share["vae"], first_vae, seed))
    if not (out / "vae.txt").exists():
        _report_vae(first_vae, out / "vae.txt", seed)
    _stage(
        "latents", [latents], lambda: run_processes(processes, diffusion.prepare, rendered, first_vae, words, latents)
    )
    _stage(
        "denoiser",
        [parts],
        lambda: run_processes(processes, diffusion.train, latents, words, share["denoiser"], batch, parts, seed),
    )
    _stage(
        "decoder",
        [last_vae],
        lambda: run_processes(
            processes, vae.train_decoder, rendered, latents, first_vae, share["decoder"], last_vae, seed
        ),
    )
    _report_vae(last_vae, out / "vae-polished.txt", seed)
    _stage("export", [model], lambda: print(f"{export.export(last_vae, parts, words, model)} bytes in {model}"))


def train_member(
    name: str, base: Path, out: Path, minutes: float, chunks: int, batch: int, processes: int, seed: int
) -> None:
    """Runs all stages of a model that works with the base model in the folder `base`; `name` as on the command line."""
    enlarges = name in ("x2", "x4")
    rendered = out / ("enlarge-data" if enlarges else "control-data")
    make_chunks = enlarge_data.make_chunks if enlarges else control_data.make_chunks
    _stage(
        "data",
        _chunk_paths(rendered, chunks),
        lambda: run_processes(processes, make_chunks, rendered, chunks, seed),
    )
    prepared = rendered
    if enlarges:
        prepared = out / "enlarge"
        files = [prepared / f"{number:03d}.safetensors" for number in range(chunks)]
        _stage("latents", files, lambda: run_processes(processes, enlarge.prepare, rendered, base, prepared))
    elif name == "controlnet":
        prepared = out / "control.safetensors"
        _stage("latents", [prepared], lambda: run_processes(processes, control.prepare, rendered, base, prepared))
    train = {
        "depth": depth.train, "controlnet": control.train, "x2": enlarge.train_x2, "x4": enlarge.train_x4,
    }[name]  # fmt: skip
    trained = out / name
    _stage(
        "training", [trained], lambda: run_processes(processes, train, prepared, base, minutes, batch, trained, seed)
    )
    exported = {folder: each for each, folder in export.TRAINED.items()}[name]
    model = out / "export" / exported
    _stage("export", [model], lambda: print(f"{export.export_member(exported, trained, base, model)} bytes in {model}"))


def _told(defaults: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in defaults.items())


def main() -> None:
    """Reads the command line and runs the stages."""
    parser = argparse.ArgumentParser(
        prog="python -m training.pocket.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=MINUTES, help="which model")
    parser.add_argument("--out", type=Path, required=True, help="folder for data, checkpoints and the model")
    parser.add_argument("--minutes", type=float, help=f"of training, data and latents apart; {_told(MINUTES)}")
    parser.add_argument("--chunks", type=int, help=f"training scenes, in chunks; {_told(CHUNKS)}")
    parser.add_argument("--batch", type=int, default=16, help="scenes in a training step of one process")
    parser.add_argument("--processes", type=int, help="processes, of one thread each; 2 for the base model, else 1")
    parser.add_argument("--seed", type=int, default=1, help="seed of everything random")
    parser.add_argument("--base", type=Path, default=export.BASE, help="the base model, for the others")
    options = parser.parse_args()
    name, seed = options.model, options.seed
    minutes = MINUTES[name] if options.minutes is None else options.minutes
    chunks, batch = options.chunks or CHUNKS[name], options.batch
    processes = options.processes or (2 if name == "base" else 1)
    if name == "base":
        train_base(options.out, minutes, chunks, batch, processes, seed)
    else:
        train_member(name, options.base, options.out, minutes, chunks, batch, processes, seed)


def _report_vae(folder: Path, report: Path, seed: int) -> None:
    """Measures the autoencoder on scenes kept out of training and writes the figure beside it."""
    model = AutoencoderKL.from_pretrained(folder).eval()
    line = f"{vae.decibels(model, data.held_out_images(200, seed)):.2f} dB on 200 renders kept out of training"
    report.write_text(line + "\n", encoding="utf-8")
    print(f"{folder.name}: {line}", flush=True)


if __name__ == "__main__":
    main()
