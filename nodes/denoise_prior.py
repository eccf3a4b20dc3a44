from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, NamedTuple

from graphflow import Compute, Conditioning, Context, Field, Memory, PortType, Problem, Text
from graphflow.nodes.diffusion.families import Tasks
from graphflow.nodes.diffusion.memory.steps import prior_memory
from graphflow.nodes.diffusion.models.model_info import ModelInfo
from graphflow.nodes.diffusion.sampling.noise import seeds_from
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT
from graphflow.nodes.diffusion.shared.adapters import PriorAdapter, Sampling
from graphflow.nodes.diffusion.shared.model_node import ModelNode
from graphflow.nodes.diffusion.shared.parameters import BatchSize, NoiseSeed

__all__ = ["DenoisePrior"]


class Imagined(NamedTuple):
    """Conditioning of what to draw, and of what to be guided away from."""

    positive: Conditioning
    negative: Conditioning


class DenoisePrior(ModelNode, version=1):
    """Imagine the picture that a prompt describes, as an embedding that guides a decoder (Kandinsky 2.2).

    A model of this kind has a prior, which denoises the embedding of a picture under the prompt, and a decoder, which
    draws it. The results are float (batch, width). Item i is drawn from ``seed + i``.
    """

    tasks: ClassVar[Tasks] = ("text-to-image", "image-to-image")

    steps: int = Field(25, ge=1, le=1000, description="denoise steps of the prior")
    guidance_scale: float = Field(4.0, ge=0, le=100, description="how strictly the prompt is followed, off up to 1")
    seed: NoiseSeed = 0
    batch_size: BatchSize = 1

    def output_types(self, inputs: Mapping[str, PortType]) -> dict[str, PortType]:
        """Conditioning for decoders of the same kind."""
        info = self.model_info()
        made = PortType(Conditioning, info.text_space if info else None, batch=self.batch_size)
        return {"positive": made, "negative": made}

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Report a model without a prior."""
        if not info.family.prior:
            message = f'the model "{info.reference}" has no prior: it is guided by the prompt itself'
            yield Problem("model.unsupported", message, "model", "use EncodePrompt")

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int | None:
        """Return the number of denoise steps of all pictures, which are imagined one by one."""
        return self.steps * self.batch_size

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """Return the prior and what it reads with."""
        return [name for name in info.components if name in info.family.prior]

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate the prior, one picture at a time, and its text encoder."""
        info = self.model_info()
        return prior_memory(info, compute, guided=self.guidance_scale > 1) if info else None

    def run(self, *, text: Text, negative_text: Text = "", context: Context) -> Imagined:
        """Imagine a batch."""
        seeds = seeds_from(self.seed, self.batch_size)
        sampling = Sampling(steps=self.steps, guidance_scale=self.guidance_scale, seeds=seeds, sampler=DEFAULT)
        backend: PriorAdapter = self.adapter(context)
        positive, negative = backend.imagine(text, negative_text, sampling, context.step)
        space = self.require_model_info().text_space
        return Imagined(Conditioning(positive.embeds, space), Conditioning(negative.embeds, space))
