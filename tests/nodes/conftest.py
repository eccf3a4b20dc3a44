from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphflow import Context, Registry, default_registry
from graphflow.nodes.diffusion.model_info import require_model


class Recorder(Context):
    """A context that remembers what a node told it."""

    def __init__(self, folder: Path) -> None:
        self.output_folder = folder
        self.files: list[Path] = []
        self.warnings: list[str] = []
        self.progress: list[tuple[int, int]] = []

    def step(self, done: int, total: int) -> None:
        self.progress.append((done, total))

    def saved(self, path: Path) -> None:
        self.files.append(path)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def context(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models are slower on several threads, far slower where something else is running."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def diffusers() -> Any:
    """The library, without its partial types."""
    return importlib.import_module("diffusers")


@pytest.fixture(scope="session")
def direct(one_thread: None) -> Any:
    """The pocket model in the text-to-image pipeline of diffusers, used as its documentation says."""
    import torch

    from graphflow.nodes.diffusion.models import quiet

    with quiet():
        cls = diffusers().StableDiffusionPipeline
        pipeline = cls.from_pretrained(str(require_model("pocket").folder), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def direct_image_to_image(direct: Any) -> Any:
    """The same model in the image-to-image pipeline of diffusers."""
    pipeline = diffusers().StableDiffusionImg2ImgPipeline(**direct.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A folder as Stable Diffusion 1.x ships it, with tiny random weights: cells of 8 pixels, PNDM, epsilon."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from graphflow.nodes.diffusion.models import quiet

    library = diffusers()
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(str(require_model("pocket").folder / "tokenizer"))
    down = ("DownEncoderBlock2D",) * 4
    up = ("UpDecoderBlock2D",) * 4
    with quiet():
        pipeline = library.StableDiffusionPipeline(
            vae=library.AutoencoderKL(
                block_out_channels=(8, 8, 8, 8),
                down_block_types=down,
                up_block_types=up,
                norm_num_groups=4,
                layers_per_block=1,
            ),
            unet=library.UNet2DConditionModel(
                sample_size=8,
                block_out_channels=(8, 16),
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                norm_num_groups=4,
                layers_per_block=1,
                cross_attention_dim=32,
                attention_head_dim=4,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=32,
                    intermediate_size=32,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    max_position_embeddings=32,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )
            ),
            tokenizer=tokenizer,
            scheduler=library.PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        folder = tmp_path_factory.mktemp("tiny-sd")
        pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def registry() -> Registry:
    """Everything that is installed."""
    return default_registry()
