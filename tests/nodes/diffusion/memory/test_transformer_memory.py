"""The estimates of memory of transformers against what torch allocates."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow import Compute
from graphflow.nodes import Text2Image
from graphflow.nodes.diffusion.families import Family, TokenMemory
from graphflow.nodes.diffusion.families.flux import FLUX
from graphflow.nodes.diffusion.families.sd3 import SD3
from graphflow.nodes.diffusion.loading.components import load_component, quiet
from graphflow.nodes.diffusion.memory.transformers import denoiser_activations, prior_activations, t5_activations
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers import tiny
from tests.helpers.libraries import diffusers, transformers
from tests.helpers.measure import check_estimate, peak_of

pytestmark = pytest.mark.numeric


@pytest.fixture(autouse=True)
def _single(one_thread: None) -> Iterator[None]:
    with torch.no_grad():
        yield


def memory_of(family: Family) -> TokenMemory:
    assert family.denoiser_memory is not None
    return family.denoiser_memory


SIZES = [(64, 64, 77, 1), (32, 32, 333, 2), (24, 40, 77, 1)]
"""Rows and columns of cells, tokens of the text, items."""


@pytest.mark.parametrize(("rows", "columns", "text", "items"), SIZES)
def test_the_denoiser_of_sd3(rows: int, columns: int, text: int, items: int) -> None:
    with quiet():
        network = diffusers().SD3Transformer2DModel(
            sample_size=64, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=64,
            num_attention_heads=4, joint_attention_dim=128, caption_projection_dim=256, pooled_projection_dim=64,
            pos_embed_max_size=64, qk_norm="rms_norm",
        ).eval()  # fmt: skip
    given = {
        "hidden_states": torch.zeros(items, 16, rows, columns), "encoder_hidden_states": torch.zeros(items, text, 128),
        "pooled_projections": torch.zeros(items, 64), "timestep": torch.ones(items),
    }  # fmt: skip
    estimate = denoiser_activations(memory_of(SD3), network.config, rows, columns, text, items, Compute())
    check_estimate(estimate, peak_of(partial(network, **given)))


@pytest.mark.parametrize("single", [0, 2])
@pytest.mark.parametrize(("rows", "columns", "text", "items"), SIZES)
def test_the_denoiser_of_flux(rows: int, columns: int, text: int, items: int, single: int) -> None:
    with quiet():
        network = diffusers().FluxTransformer2DModel(
            in_channels=64, num_layers=2, num_single_layers=single, attention_head_dim=64, num_attention_heads=4,
            joint_attention_dim=128, pooled_projection_dim=64, guidance_embeds=True, axes_dims_rope=(16, 24, 24),
        ).eval()  # fmt: skip
    image = rows * columns // 4
    given = {
        "hidden_states": torch.zeros(items, image, 64), "encoder_hidden_states": torch.zeros(items, text, 128),
        "pooled_projections": torch.zeros(items, 64), "timestep": torch.ones(items), "guidance": torch.ones(items),
        "img_ids": torch.zeros(image, 3), "txt_ids": torch.zeros(text, 3),
    }  # fmt: skip
    estimate = denoiser_activations(memory_of(FLUX), network.config, rows, columns, text, items, Compute())
    check_estimate(estimate, peak_of(partial(network, **given)))


@pytest.mark.parametrize(
    ("width", "inner", "heads", "tokens"), [(128, 512, 4, 256), (256, 640, 8, 512), (256, 2048, 4, 77)]
)
def test_t5(width: int, inner: int, heads: int, tokens: int) -> None:
    library = transformers()
    config = library.T5Config(
        d_model=width, d_ff=inner, num_heads=heads, d_kv=width // heads, num_layers=2, vocab_size=10,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    with quiet():
        network = library.T5EncoderModel(config).eval()
    real = peak_of(partial(network, torch.zeros(1, tokens, dtype=torch.long)))
    check_estimate(t5_activations(config.to_dict(), tokens, Compute()), real)


def test_the_prior_of_kandinsky() -> None:
    with quiet():
        network = diffusers().PriorTransformer(
            num_attention_heads=4, attention_head_dim=64, num_layers=2, embedding_dim=128, num_embeddings=77
        ).eval()  # fmt: skip
    given: dict[str, Any] = {
        "hidden_states": torch.zeros(2, 128), "timestep": torch.tensor(1), "proj_embedding": torch.zeros(2, 128),
        "encoder_hidden_states": torch.zeros(2, 77, 128),
    }  # fmt: skip
    check_estimate(prior_activations(network.config, 2, Compute()), peak_of(partial(network, **given)))


@pytest.mark.parametrize("name", ["sd3", "flux", "kandinsky"])
def test_the_plan_knows_each_step_that_reads_or_draws_and_the_weights_that_it_loads(name: str, tmp_path: Path) -> None:
    folder = getattr(tiny, name)(tmp_path / name)
    info = require_model(str(folder))
    workflow = gf.Workflow()
    workflow.output("image", workflow.add("draw", Text2Image(model=str(folder), width=64, height=64), prompt="a ball"))
    planned = workflow.plan()
    estimates = {step.node.type_id: planned.memory(step) for step in planned.steps}
    parts = {
        "EncodePrompt": [part for part in info.components if part.startswith("text_encoder")],
        "DenoisePrior": [part for part in info.components if part in info.family.prior],
        "Denoise": [info.family.denoiser],
    }
    checked = 0
    for step, names in parts.items():
        if step in estimates:
            need = estimates[step]
            assert need is not None and need.activations > 0
            networks = [load_component(info, part, Compute()) for part in names]
            # T5 has its embeddings under two names
            own = {tensor.data_ptr(): tensor.nbytes for each in networks for tensor in each.state_dict().values()}
            real = sum(own.values())
            assert need.weights == pytest.approx(real, rel=0.01, abs=4000)
            checked += 1
    assert checked == 2
