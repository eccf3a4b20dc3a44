from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphflow import Registry, default_registry
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers import tiny
from tests.helpers.libraries import diffusers
from tests.helpers.recorder import Recorder


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
    """A folder as Stable Diffusion 1.x ships it, with tiny random weights."""
    return tiny.stable_diffusion(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture
def registry() -> Registry:
    """Everything that is installed."""
    return default_registry()
