from __future__ import annotations

import importlib
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from graphflow import Compute, Image
from graphflow.nodes import Denoise, EmptyLatent, EncodeImage, EncodePrompt
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from graphflow.nodes.diffusion.loading import components as models
from graphflow.nodes.diffusion.loading.components import load_component, make_scheduler, quiet
from graphflow.nodes.diffusion.loading.pool import Pool
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.recorder import Recorder


@pytest.fixture
def fresh_pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    monkeypatch.setattr(models, "pool", pool)
    return pool


def held(pool: Pool) -> list[str]:
    return sorted(str(key[1][1]) for key in pool._entries if isinstance(key[1], tuple))


def test_components_are_loaded_once(tmp_path: Path) -> None:
    info = require_model("pocket")
    unet = load_component(info, "unet", Compute())
    assert load_component(info, "unet", Compute()) is unet
    assert unet.dtype == torch.float32
    assert not unet.training
    shutil.copytree(POCKET_FOLDER / "base", tmp_path / "copy")
    assert load_component(require_model(str(tmp_path / "copy")), "unet", Compute()) is unet
    assert load_component(info, "unet", Compute(dtype="float16")) is not unet


def test_a_step_loads_only_what_it_needs(fresh_pool: Pool, context: Recorder, one_thread: None) -> None:
    positive = EncodePrompt().run(text="a red ball", context=context)
    assert held(fresh_pool) == ["CLIPTextModel", "tokenizer"]
    fresh_pool.clear()
    Denoise(steps=1, guidance_scale=1).run(
        latent=EmptyLatent().run(context=context), positive=positive, context=context
    )
    assert held(fresh_pool) == ["UNet2DConditionModel"]
    fresh_pool.clear()
    EncodeImage().run(image=Image(torch.zeros(1, 3, 16, 16)), context=context)
    assert held(fresh_pool) == ["AutoencoderKL"]


def test_schedulers_are_never_shared() -> None:
    info = require_model("pocket")
    assert make_scheduler(info, "default") is not make_scheduler(info, "default")


def test_loading_and_running_is_quiet(fresh_pool: Pool, context: Recorder, capfd: pytest.CaptureFixture[str]) -> None:
    positive = EncodePrompt().run(text="a red ball", context=context)
    Denoise(steps=1, guidance_scale=1).run(
        latent=EmptyLatent().run(context=context), positive=positive, context=context
    )
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_settings_of_the_libraries_are_put_back() -> None:
    import diffusers
    import transformers

    before = diffusers.utils.logging.get_verbosity(), transformers.utils.logging.get_verbosity()
    with models.quiet():
        pass
    assert (diffusers.utils.logging.get_verbosity(), transformers.utils.logging.get_verbosity()) == before


def test_the_least_recently_used_goes_first() -> None:
    pool = Pool(lambda device: 10)
    loads: list[str] = []

    def get(key: str, size: int, device: str = "cpu") -> None:
        pool.get(device, key, lambda: loads.append(key), lambda _: size)

    get("a", 4)
    get("b", 4)
    get("a", 4)
    get("c", 4)
    assert loads == ["a", "b", "c"]
    assert pool.nbytes("cpu") == 8
    get("a", 4)
    assert loads == ["a", "b", "c"]
    get("b", 4)
    assert loads == ["a", "b", "c", "b"]
    get("d", 4, "cuda:0")
    assert pool.nbytes("cpu") == 8
    get("large", 50)
    assert (pool.nbytes("cpu"), len(pool)) == (50, 2)


def test_threads_load_once() -> None:
    pool = Pool(lambda device: 10)
    loads: list[int] = []

    def load() -> object:
        loads.append(1)
        time.sleep(0.01)
        return object()

    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(pool.get("cpu", "a", load, lambda _: 1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(loads), len(set(map(id, found)))) == (1, 1)


@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_quiet_lets_only_errors_through_and_puts_everything_back(library: str) -> None:
    logged: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    handler, logger = Handler(logging.INFO), logging.getLogger(f"{library}.somewhere")
    root, bars = logging.getLogger(library), importlib.import_module(f"{library}.utils.logging")
    before = bars.is_progress_bar_enabled()
    root.addHandler(handler)
    try:
        with quiet():
            assert not bars.is_progress_bar_enabled()
            logger.warning("advice")
            logger.error("an error")
            with quiet():
                logger.warning("more advice")
            logger.warning("and more")
        logger.warning("afterwards")
    finally:
        root.removeHandler(handler)
    assert logged == ["an error", "afterwards"]
    assert handler.level == logging.INFO
    assert bars.is_progress_bar_enabled() == before
