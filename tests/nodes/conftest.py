from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphflow import Context, Registry, default_registry
from graphflow.nodes.diffusion.models.model_info import require_model


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


def transformers() -> Any:
    """The library, without its partial types."""
    return importlib.import_module("transformers")


@pytest.fixture(scope="session")
def direct(one_thread: None) -> Any:
    """The pocket model in the text-to-image pipeline of diffusers, used as its documentation says."""
    import torch

    from graphflow.nodes.diffusion.loading.components import quiet

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
    from tests.helpers import tiny

    library = diffusers()

    def build() -> Any:
        return library.StableDiffusionPipeline(
            vae=tiny.autoencoder(),
            unet=tiny.unet(tiny.WIDTH),
            text_encoder=tiny.text_encoder(),
            tokenizer=tiny.tokenizer(),
            scheduler=library.PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return tiny.save(tmp_path_factory.mktemp("tiny-sd"), build)


@pytest.fixture
def registry() -> Registry:
    """Everything that is installed."""
    return default_registry()
