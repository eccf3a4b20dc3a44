"""stable-diffusion-x4-upscaler and models of its architecture: pixels to latents of a picture four times as large."""

from __future__ import annotations

from typing import Any

import torch

from graphflow.nodes.diffusion.adapters.clip_family import ClipFamily
from graphflow.nodes.diffusion.adapters.denoising import DescribedVae
from graphflow.nodes.diffusion.adapters.noise import generators_from
from graphflow.nodes.diffusion.loading.components import make_scheduler, quiet
from graphflow.nodes.diffusion.loading.tiling import in_tiles
from graphflow.nodes.diffusion.sampling.samplers import DEFAULT
from graphflow.nodes.diffusion.shared.adapters import Progress, Prompts, Sampling

with quiet():
    from diffusers import StableDiffusionUpscalePipeline
    from diffusers.image_processor import VaeImageProcessor

__all__ = ["Upscaler"]

SCALING_FACTOR = 0.08333
"""What the pipeline presumes of every VAE. It rewrites one that says something else, so it is given no real one."""


class Upscaler(ClipFamily):
    """Runs one model on one device: a `SuperResolutionAdapter`."""

    def super_resolve(
        self,
        pixels: torch.Tensor,
        prompts: Prompts,
        sampling: Sampling,
        *,
        noise_level: int,
        tile: int,
        overlap: int,
        progress: Progress,
    ) -> torch.Tensor:
        """Latents (batch, channels, height, width) of pictures four times as large as pixels of that size."""
        unet, batch, steps = self._load("unet"), len(pixels), sampling.steps
        pipeline = self._pipeline(
            StableDiffusionUpscalePipeline,
            vae=DescribedVae(self.info, SCALING_FACTOR),
            unet=_TiledUNet(unet, self.device, tile, overlap),
            scheduler=make_scheduler(self.info, sampling.sampler, seeds=sampling.seeds),
            low_res_scheduler=make_scheduler(self.info, DEFAULT, name="low_res_scheduler"),
            max_noise_level=self.info.max_noise_level,
        )
        # A small picture may have any size: each of its pixels is a cell of the result.
        pipeline.image_processor = VaeImageProcessor(do_resize=False)
        result: torch.Tensor = pipeline(
            image=pixels.to(self.device, unet.dtype),
            num_inference_steps=steps,
            guidance_scale=sampling.guidance_scale,
            noise_level=noise_level,
            generator=generators_from(sampling.seeds),
            prompt_embeds=self._rows(prompts.positive, batch).embeds,
            negative_prompt_embeds=self._rows(prompts.negative, batch).embeds,
            output_type="latent",
            callback=lambda index, timestep, values: progress(min(index + 1, steps), steps),
        ).images
        return result


class _TiledUNet(torch.nn.Module):
    """A UNet that looks at a large picture tile by tile and mixes its answers at each step (Bar-Tal et al. 2023).

    Since all tiles go through the noise schedule together, they agree where they overlap: nothing is stitched at the
    end. A picture of one tile is given to the UNet as it is.
    """

    def __init__(self, unet: Any, device: str, tile: int, overlap: int) -> None:
        super().__init__()
        self.unet, self.tile, self.overlap = unet, tile, overlap
        # not the UNet's own device: one that is offloaded is still elsewhere
        self.config, self.dtype, self.device = unet.config, unet.dtype, torch.device(device)

    def forward(self, sample: torch.Tensor, timestep: Any, **arguments: Any) -> tuple[torch.Tensor]:
        """As the UNet's own ``forward`` with ``return_dict=False``."""

        def part(rows: slice, columns: slice) -> torch.Tensor:
            answer: torch.Tensor = self.unet(sample[:, :, rows, columns], timestep, **arguments)[0]
            return answer

        return (in_tiles(part, *sample.shape[-2:], tile=self.tile, overlap=self.overlap),)
