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
"""The scaling factor that the pipeline assumes. It overwrites another one in its VAE, so it gets a stand-in."""


class Upscaler(ClipFamily):
    """A `SuperResolutionAdapter` for one model on one device."""

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
        """Return latents (batch, channels, height, width) of pictures four times as large as the given pixels."""
        unet, batch, steps = self._load("unet"), len(pixels), sampling.steps
        pipeline = self._pipeline(
            StableDiffusionUpscalePipeline,
            vae=DescribedVae(self.info, SCALING_FACTOR),
            unet=_TiledUNet(unet, self.device, tile, overlap),
            scheduler=make_scheduler(self.info, sampling.sampler, seeds=sampling.seeds),
            low_res_scheduler=make_scheduler(self.info, DEFAULT, name="low_res_scheduler"),
            max_noise_level=self.info.max_noise_level,
        )
        # The given picture may have any size: each of its pixels is a latent cell of the result.
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
    """A UNet that runs on a large picture tile by tile and blends its outputs at each step (Bar-Tal et al. 2023).

    Since all tiles are at the same step of the schedule, they agree where they overlap, and nothing is stitched at the
    end. A picture of one tile goes to the UNet unchanged.
    """

    def __init__(self, unet: Any, device: str, tile: int, overlap: int) -> None:
        super().__init__()
        self.unet, self.tile, self.overlap = unet, tile, overlap
        # not the UNet's own device: one that is offloaded is still elsewhere
        self.config, self.dtype, self.device = unet.config, unet.dtype, torch.device(device)

    def forward(self, sample: torch.Tensor, timestep: Any, **arguments: Any) -> tuple[torch.Tensor]:
        """Run the UNet in tiles; arguments and result are those of its own ``forward`` with ``return_dict=False``."""

        def part(rows: slice, columns: slice) -> torch.Tensor:
            answer: torch.Tensor = self.unet(sample[:, :, rows, columns], timestep, **arguments)[0]
            return answer

        return (in_tiles(part, *sample.shape[-2:], tile=self.tile, overlap=self.overlap),)
