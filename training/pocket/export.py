"""Writes the trained parts as a folder that `StableDiffusionPipeline.from_pretrained` loads: fp16 safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.pocket.diffusion import build_scheduler

LARGEST_BYTES = 14_000_000
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def _scrub(path: Path) -> None:
    """Removes from a configuration where its model was loaded from, and makes float32 what it is loaded as."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    if "dtype" in config:
        # transformers loads a model as its configuration says, diffusers as float32: half a pipeline would be half
        config["dtype"] = "float32"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def export(vae_folder: Path, parts_folder: Path, tokenizer_folder: Path, out: Path) -> int:
    """Replaces the folder `out` by the exported pipeline and returns its size in bytes."""
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
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_folder / name, partial / "tokenizer" / name)
    for path in partial.rglob("*.json"):
        if path.parent.name != "tokenizer":
            _scrub(path)
    for path in partial.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    if size > LARGEST_BYTES:
        raise ValueError(f"the model takes {size} bytes, more than {LARGEST_BYTES}")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return size
