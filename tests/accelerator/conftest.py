"""Tests on a real accelerator: ``GRAPHFLOW_TEST_DEVICE=cuda pytest tests/accelerator``. Elsewhere they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from graphflow.nodes.diffusion.loading.components import pool
from tests.helpers import tiny

DEVICE = os.environ.get("GRAPHFLOW_TEST_DEVICE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is here, and only that, where no device is named."""
    if DEVICE is None:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="GRAPHFLOW_TEST_DEVICE names no device"))


@pytest.fixture(scope="session")
def one_thread() -> None:
    """The accelerator computes here, and what is compared with it may have all processors."""


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Stable Diffusion 1.x ships it, with tiny random weights."""
    return tiny.stable_diffusion(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture
def device() -> str:
    """The device to compute on."""
    assert DEVICE is not None
    return DEVICE


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """float32 is computed in float32, as on the CPU, not in the shorter format that CUDA takes for convolutions."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def empty_pool() -> Iterator[None]:
    """No network is loaded before, and none stays."""
    pool.clear()
    yield
    pool.clear()
