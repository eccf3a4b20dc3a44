"""Components of models, loaded once and shared by every node and pipeline that uses them.

The digest of its files identifies a component, so two models with the same VAE hold it once. Weights are read from
safetensors files on the disk only: nothing is downloaded and nothing unpickled. Schedulers keep state while they run,
so each use gets a new one.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from graphflow import Compute, Memory
from graphflow.machine.memory import free_memory
from graphflow.nodes.diffusion.checkpoints.model_files import Component, component_dtype, mtime_ns
from graphflow.nodes.diffusion.families import class_of
from graphflow.nodes.diffusion.loading.checkpoint_loading import from_checkpoint, fuse_loras
from graphflow.nodes.diffusion.loading.conversion import converted_in_parts
from graphflow.nodes.diffusion.loading.noise_in_float32 import draw_noise_in_float32
from graphflow.nodes.diffusion.loading.pool import Pool
from graphflow.nodes.diffusion.loading.process import give_back, limit_threads
from graphflow.nodes.diffusion.loading.switches import copied, placed, release
from graphflow.nodes.diffusion.memory.networks import weight_bytes
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.models.network_info import IMAGE_PROCESSOR
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT, SAMPLERS

__all__ = [
    "adapter",
    "begin_step",
    "load_component",
    "load_image_processor",
    "load_network",
    "load_tokenizer",
    "make_scheduler",
    "pool",
    "quiet",
]

limit_threads()  # before anything computes
draw_noise_in_float32()

pool = Pool()
"""The pool of this process."""

_quiet = threading.RLock()

_HANDLED = logging.getLogger("diffusers"), logging.getLogger("transformers")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from writing progress bars and warnings; restore their settings afterwards.

    The levels of their handlers are raised, not those of their loggers, as their own functions do: that would clear
    the caches of all loggers of Python's logging, which takes a millisecond.
    """
    libraries: tuple[Any, ...] = diffusers.utils.logging, transformers.utils.logging
    with _quiet:
        bars = [library for library in libraries if library.is_progress_bar_enabled()]
        handlers = [(handler, handler.level) for logger in _HANDLED for handler in logger.handlers]
        for handler, level in handlers:
            handler.setLevel(max(level, logging.ERROR))
        for library in bars:
            library.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            for handler, level in handlers:
                handler.setLevel(level)
            for library in bars:
                library.enable_progress_bar()


def adapter(info: ModelInfo, compute: Compute, need: Memory | None = None) -> Any:
    """Return the adapter that runs a model for one step, after `begin_step` has made room for ``need``."""
    made = _adapter_class(info.family.adapter)(info, compute)
    begin_step(compute, need)
    return made


@cache
def _adapter_class(name: str) -> Callable[[ModelInfo, Compute], Any]:
    module, _, cls = name.partition(":")
    found: Callable[[ModelInfo, Compute], Any] = getattr(importlib.import_module(module), cls)
    return found


def begin_step(compute: Compute, need: Memory | None) -> None:
    """Make room for the activations of a step: limit the pool, and move offloaded networks back to the CPU."""
    release(compute.device)
    whole = free_memory(compute.device) if compute.memory_budget is None else compute.memory_budget
    pool.limit(compute.device, None if whole is None else whole - (need.activations if need else 0))


def load_component(info: ModelInfo, name: str, compute: Compute) -> Any:
    """Load a component with weights ("unet", "vae", "text_encoder"), ready to compute, from the pool."""
    cls = class_of(info.configs["pipeline"], name)
    assert cls is not None
    kind = component_dtype(info.configs[name], compute.dtype)
    denoises = name == info.family.denoiser
    return load_network(info.components[name], cls, replace(compute, dtype=kind), name, denoises=denoises)


def load_network(component: Component, cls: str, compute: Compute, name: str = "", *, denoises: bool = False) -> Any:
    """Load a network of a class of diffusers or transformers, in evaluation mode and ready to compute, from the pool.

    ``name`` is its name in its pipeline, by which LoRAs are added to it. A network that ``denoises`` runs at each step
    of a schedule, so it is compiled if ``compute`` says so.
    """

    def load() -> torch.nn.Module:
        with quiet():
            module = _read_weights(component, cls, compute)
            if component.loras:
                fuse_loras(module, name, component.loras)
        ready = placed(module.eval().requires_grad_(False), compute, compiled=compute.compile and denoises)
        give_back()
        return ready

    held_on = compute.device if compute.offload == "none" else "cpu"
    key = (component.digest, cls, replace(compute, memory_budget=None))
    # a compiled network cannot be copied; on an accelerator without memory of its own a copy would free none
    returns = held_on.startswith("cuda") and not compute.compile
    expected = weight_bytes(component, {}, replace(compute, offload="none")) or 0
    return pool.get(held_on, key, load, _module_bytes, expected=expected, copy=copied if returns else None)


def _of_transformers(name: str) -> bool:
    return not hasattr(diffusers, name)


def _class(name: str) -> Any:
    library: Any = transformers if _of_transformers(name) else diffusers
    return getattr(library, name)


def _read_weights(component: Component, cls: str, compute: Compute) -> torch.nn.Module:
    dtype, eager = getattr(torch, compute.dtype), compute.attention == "eager" and _of_transformers(cls)
    if component.checkpoint:
        module: Any = from_checkpoint(component, _class(cls), dtype)
        if eager:
            module.set_attn_implementation("eager")
    else:
        with contextlib.ExitStack() as stack:
            if not getattr(_class(cls), "_keep_in_fp32_modules", None):
                stack.enter_context(converted_in_parts(dtype))
            module = _class(cls).from_pretrained(
                str(component.folder),
                dtype=dtype,
                variant=component.variant,
                use_safetensors=True,
                local_files_only=True,
                **({"attn_implementation": "eager"} if eager else {}),
            )
    read: torch.nn.Module = module
    return read


def _module_bytes(module: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def load_tokenizer(info: ModelInfo, name: str = "tokenizer") -> Any:
    """Load a tokenizer of a model, from the pool."""
    folder, settings = str(info.tokenizers[name]), info.tokenizer_settings.get(name, {})
    named = class_of(info.configs["pipeline"], name) or ""
    known = {"T5": transformers.T5TokenizerFast, "CLIP": transformers.CLIPTokenizer}
    # for any other, its own configuration names the class; no code in its folder is run
    cls: Any = next((cls for word, cls in known.items() if word in named), transformers.AutoTokenizer)

    def load() -> Any:
        with quiet():
            return cls.from_pretrained(folder, local_files_only=True, **settings)

    return pool.get("cpu", (folder, "tokenizer", *settings.items()), load, lambda _: 1 << 20)


def load_image_processor(folder: Path) -> Any:
    """Load the image processor of a model of transformers, from the pool.

    It is always the one based on Pillow: the other needs torchvision and returns different values, so a result would
    depend on whether torchvision is installed.
    """

    def load() -> Any:
        with quiet():
            return transformers.AutoImageProcessor.from_pretrained(
                str(folder), backend="pil", local_files_only=True, trust_remote_code=False
            )

    key = (str(folder), mtime_ns(folder / IMAGE_PROCESSOR), "image processor")
    return pool.get("cpu", key, load, lambda _: 1 << 20)


def make_scheduler(info: ModelInfo, sampler: str, name: str = "scheduler", *, seeds: Sequence[int] = ()) -> Any:
    """Make a new scheduler: the model's own under ``name``, or that of a sampler with the model's configuration.

    A scheduler that draws its own noise, not from the generators of the pipeline, draws it for item i from
    ``seeds[i]``. Raises ValueError for a class that diffusers does not have.
    """
    config = dict(info.configs[name])
    config.update({key: value for key, value in info.family.scheduler_config.items() if key in config})
    if sampler == DEFAULT:
        class_name = str(config["_class_name"])
    else:
        class_name = SAMPLERS[sampler].scheduler
        config.update(SAMPLERS[sampler].config)
        if class_name != "DDPMScheduler":
            # Only DDPM takes a variance from the denoiser; the pipelines pass one on if this entry exists.
            config.pop("variance_type", None)
    cls: Any = getattr(diffusers, class_name, None)
    if not hasattr(cls, "set_timesteps"):
        raise ValueError(
            f'the model "{info.reference}" names the scheduler {class_name}, which diffusers {diffusers.__version__} '
            "does not have; choose a sampler"
        )
    with quiet():
        scheduler = cls.from_config(config)
    if hasattr(scheduler, "noise_sampler_seed"):
        scheduler.noise_sampler_seed = list(seeds)
    return scheduler
