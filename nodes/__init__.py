"""The node types that come with GraphFlow. Importing them imports no torch.

Coarse nodes read as people think and stand for fine ones: `Text2Image`, `Image2Image`, `ControlNetDepth`, `Upscale`,
`SuperRes`. The fine ones are what runs, is cached and merged: prompts and pictures encoded and decoded, the denoising
of each kind, depth, files.
"""

if __name__ != "graphflow.nodes":
    raise ImportError(
        f"this folder is the package graphflow.nodes, but it was imported as {__name__!r}, which would make a second "
        "copy of every node class; write `from graphflow.nodes import …`"
    )

from graphflow.nodes.controlnet_depth import ControlNetDepth
from graphflow.nodes.decode_latent import DecodeLatent
from graphflow.nodes.denoise import Denoise
from graphflow.nodes.denoise_controlnet import DenoiseControlNet
from graphflow.nodes.denoise_prior import DenoisePrior
from graphflow.nodes.empty_latent import EmptyLatent
from graphflow.nodes.encode_image import EncodeImage
from graphflow.nodes.encode_prompt import EncodePrompt
from graphflow.nodes.enlarge_image import EnlargeImage
from graphflow.nodes.estimate_depth import EstimateDepth
from graphflow.nodes.fit_depth_map import FitDepthMap
from graphflow.nodes.image2image import Image2Image
from graphflow.nodes.load_depth_map import LoadDepthMap
from graphflow.nodes.load_image import LoadImage
from graphflow.nodes.resize_image import ResizeImage
from graphflow.nodes.save_depth_map import SaveDepthMap
from graphflow.nodes.save_image import SaveImage
from graphflow.nodes.super_res import DenoiseSuperRes, SuperRes
from graphflow.nodes.text2image import Text2Image
from graphflow.nodes.upscale import DenoiseUpscale, Upscale

MODEL_LIBRARY = "graphflow.nodes.diffusion.models.model_library:library"
"""Import path of what lists models for the command line, imported on its first use: see `graphflow.model_library`."""

__all__ = [
    "ControlNetDepth",
    "DecodeLatent",
    "Denoise",
    "DenoiseControlNet",
    "DenoisePrior",
    "DenoiseSuperRes",
    "DenoiseUpscale",
    "EmptyLatent",
    "EncodeImage",
    "EncodePrompt",
    "EnlargeImage",
    "EstimateDepth",
    "FitDepthMap",
    "Image2Image",
    "LoadDepthMap",
    "LoadImage",
    "ResizeImage",
    "SaveDepthMap",
    "SaveImage",
    "SuperRes",
    "Text2Image",
    "Upscale",
]
