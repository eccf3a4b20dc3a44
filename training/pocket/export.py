"""Writes trained models as folders that diffusers loads: fp16 safetensors, and configurations without traces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionLatentUpscalePipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket.diffusion import build_scheduler
from training.pocket.distributed import save_folder
from training.pocket.enlarge import MAX_NOISE_LEVEL, build_low_res_scheduler, build_x2_scheduler

LARGEST_BYTES = {
    "base": 14_000_000,
    "controlnet-depth": 5_500_000,
    "x2": 4_000_000,
    "x4": 4_000_000,
    "depth": 2_000_000,
}
"""What each exported folder may take, so that a network made larger by mistake is not shipped."""
BASE = Path(__file__).parents[2] / "nodes" / "diffusion" / "pocket" / "base"
"""The base model that is shipped."""
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
SHARED = ("vae", "text_encoder", "tokenizer")
"""Parts of the upscalers' pipelines that are the base model's: they are named but not written a second time."""
TRAINED = {"controlnet-depth": "controlnet", "x2": "x2", "x4": "x4", "depth": "depth"}
"""The folder that training leaves each model in, by the name that it is exported under."""


def _scrub(path: Path) -> None:
    """Removes from a configuration where its model was loaded from, and makes float32 what it is loaded as."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    if "dtype" in config:
        # transformers loads a model as its configuration says, diffusers as float32: half a pipeline would be half
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write(name: str, out: Path, save: Callable[[Path], object]) -> int:
    """Lets `save` write a folder, cleans it, gives it the name `out` and returns its size in bytes."""
    size = 0

    def save_clean(partial: Path) -> None:
        nonlocal size
        save(partial)
        for path in partial.rglob("*.json"):
            if path.parent.name != "tokenizer":
                _scrub(path)
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        if size > LARGEST_BYTES[name]:
            raise ValueError(f"the model takes {size} bytes, more than {LARGEST_BYTES[name]}")

    save_folder(out, save_clean)
    return size


def export(vae_folder: Path, parts_folder: Path, tokenizer_folder: Path, out: Path) -> int:
    """Replaces the folder `out` by the exported base pipeline and returns its size in bytes."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(vae_folder).half(),
        text_encoder=CLIPTextModel.from_pretrained(parts_folder / "text_encoder").half(),
        tokenizer=CLIPTokenizer.from_pretrained(str(tokenizer_folder)),
        unet=UNet2DConditionModel.from_pretrained(parts_folder / "unet").half(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

    def save(folder: Path) -> None:
        pipeline.save_pretrained(folder, safe_serialization=True)
        for name in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_folder / name, folder / "tokenizer" / name)

    return _write("base", out, save)


def _without_shared_parts(pipeline: StableDiffusionPipeline) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        pipeline.save_pretrained(folder, safe_serialization=True)
        for part in SHARED:
            shutil.rmtree(folder / part)

    return save


def shared_parts(base: Path) -> dict[str, object]:
    """The base model's parts that an upscaler's `from_pretrained` is to be given, in float32."""
    return {
        "vae": AutoencoderKL.from_pretrained(base / "vae", dtype=torch.float32),
        "text_encoder": CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32),
        "tokenizer": CLIPTokenizer.from_pretrained(str(base / "tokenizer")),
    }


def export_member(name: str, trained: Path, base: Path, out: Path) -> int:
    """Replaces the folder `out` by the exported model `name` (see `TRAINED`) and returns its size in bytes.

    `trained` is the folder that training saved. The upscalers are folders of pipelines that lack the `SHARED` parts;
    the pipelines find those in the arguments of `from_pretrained` (see `shared_parts`), taken from the folder `base`.
    """
    if name == "controlnet-depth":
        controlnet = ControlNetModel.from_pretrained(trained).half()
        return _write(name, out, lambda folder: controlnet.save_pretrained(folder, safe_serialization=True))
    if name == "depth":
        network = UNet2DModel.from_pretrained(trained).half()
        return _write(name, out, lambda folder: network.save_pretrained(folder, safe_serialization=True))
    unet = UNet2DConditionModel.from_pretrained(trained).half()
    if name == "x2":
        pipeline = StableDiffusionLatentUpscalePipeline(unet=unet, scheduler=build_x2_scheduler(), **shared_parts(base))
    else:
        pipeline = StableDiffusionUpscalePipeline(
            unet=unet,
            scheduler=build_scheduler(),
            low_res_scheduler=build_low_res_scheduler(),
            max_noise_level=MAX_NOISE_LEVEL,
            **shared_parts(base),
        )
    return _write(name, out, _without_shared_parts(pipeline))
