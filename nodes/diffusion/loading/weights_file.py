"""Weights in a single file, read without running any code in it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from graphflow.nodes.diffusion.checkpoints.location import model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError
from graphflow.nodes.diffusion.loading.components import quiet

__all__ = ["read_weights"]


def read_weights(reference: str, path: Path) -> dict[str, Any]:
    """Read the tensors in a .safetensors or .pth file by name, to the CPU; those of a .pth may be in a nested dict.

    A .pth file is a pickle. torch reads it as weights only: it rebuilds tensors, and calls nothing else that the file
    names. Raises UnusableError for a file that needs more, or cannot be read.
    """
    if path.suffix == ".safetensors":
        return dict(safetensors.torch.load_file(path))
    try:
        with quiet():
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        # the message of torch advises to load the file without restrictions, so it is not passed on
        raise (_asks_for(reference, wants[1]) if wants else _unreadable(reference, "torch did not write it")) from None
    except Exception as error:  # a damaged pickle can raise anything
        raise _unreadable(reference, f"{type(error).__name__}: {error}") from error
    if not isinstance(weights, dict):
        raise _unreadable(reference, f"it holds a {type(weights).__name__}, expected tensors by name")
    return weights


def _asks_for(reference: str, wanted: str) -> UnusableError:
    message = (
        f'the file "{reference}" holds more than weights: it asks for {wanted}, which could run code, so nothing of it '
        "was used"
    )
    hint = "look for a .safetensors version; if you trust the file, save its weights alone as .safetensors"
    return UnusableError(model_problem("model.unsafe", message, hint))


def _unreadable(reference: str, reason: str) -> UnusableError:
    message = f'the file "{reference}" cannot be read as weights: {reason}'
    return UnusableError(model_problem("model.unsupported", message, "download it again, whole"))
