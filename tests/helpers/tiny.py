"""Tiny random checkpoints of the real architectures: same classes and channel layout, small widths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel

from graphflow.nodes.diffusion.loading.components import quiet
from graphflow.nodes.diffusion.models.model_info import require_model
from tests.helpers.libraries import diffusers, transformers

WIDTH = 32
"""Width of the first CLIP text encoder."""


def save(folder: Path, build: Any, seed: int = 0) -> Path:
    """Builds a pipeline with a fixed seed and saves it in the layout of diffusers."""
    torch.manual_seed(seed)
    with quiet():
        build().save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    """The pocket model's: a true CLIP tokenizer with few words."""
    return transformers().CLIPTokenizer.from_pretrained(str(require_model("pocket").folder / "tokenizer"))


def text_encoder(width: int = WIDTH, *, projected: bool = False, activation: str = "quick_gelu") -> Any:
    library, words = transformers(), tokenizer()
    config = library.CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, projection_dim=width, hidden_act=activation,
    )  # fmt: skip
    return (library.CLIPTextModelWithProjection if projected else library.CLIPTextModel)(config).eval()


def autoencoder(**config: Any) -> Any:
    """Cells of 8 pixels."""
    return diffusers().AutoencoderKL(
        **{
            "block_out_channels": (8, 8, 8, 8), "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4, "norm_num_groups": 4, "layers_per_block": 1, **config,
        }
    )  # fmt: skip


def unet(width: int, **config: Any) -> Any:
    return diffusers().UNet2DConditionModel(
        **{
            "sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": width,
            "attention_head_dim": 4, **config,
        }
    )  # fmt: skip


def stable_diffusion(folder: Path) -> Path:
    """Stable Diffusion 1.x: cells of 8 pixels, PNDM, epsilon."""
    library = diffusers()

    def build() -> Any:
        return library.StableDiffusionPipeline(
            vae=autoencoder(),
            unet=unet(WIDTH),
            text_encoder=text_encoder(),
            tokenizer=tokenizer(),
            scheduler=library.PNDMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    return save(folder, build)


SDXL_UNET: dict[str, Any] = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "attention_head_dim": (2, 4),
    "use_linear_projection": True, "transformer_layers_per_block": (1, 2),
}  # fmt: skip
POOLED = 40
"""Width of the second text encoder of SDXL."""


def sdxl(folder: Path, *, seed: int = 0) -> Path:
    """A base: two text encoders, Euler in steps of "leading" spacing, zeros for no negative prompt."""
    library = diffusers()

    def build() -> Any:
        return library.StableDiffusionXLPipeline(
            vae=autoencoder(scaling_factor=0.13025, force_upcast=True),
            text_encoder=text_encoder(),
            text_encoder_2=text_encoder(POOLED, projected=True, activation="gelu"),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet(WIDTH + POOLED, **SDXL_UNET, projection_class_embeddings_input_dim=POOLED + 6 * 8),
            scheduler=euler(),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )

    return save(folder, build, seed)


def sdxl_refiner(folder: Path, base: Path) -> Path:
    """A refiner with the autoencoder and the second text encoder of ``base``."""
    library = diffusers()

    def build() -> Any:
        parts = library.StableDiffusionXLPipeline.from_pretrained(str(base))
        return library.StableDiffusionXLImg2ImgPipeline(
            vae=parts.vae, text_encoder=None, tokenizer=None, text_encoder_2=parts.text_encoder_2,
            tokenizer_2=parts.tokenizer_2, scheduler=euler(), requires_aesthetics_score=True,
            force_zeros_for_empty_prompt=False, add_watermarker=False,
            unet=unet(POOLED, **SDXL_UNET, projection_class_embeddings_input_dim=POOLED + 5 * 8),
        )  # fmt: skip

    return save(folder, build, 3)


def euler() -> Any:
    """The scheduler that SDXL ships with."""
    return diffusers().EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )


IMAGINED = 24
"""Width of the embeddings that guide a Kandinsky decoder."""


def kandinsky(folder: Path) -> Path:
    """A decoder in ``folder``/decoder and its prior in ``folder``/prior; the decoder is returned."""
    library, words = diffusers(), transformers()

    def prior() -> Any:
        vision = words.CLIPVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32,
            patch_size=16, projection_dim=IMAGINED,
        )  # fmt: skip
        imagines = library.PriorTransformer(
            num_attention_heads=2, attention_head_dim=12, num_layers=1, embedding_dim=IMAGINED, num_embeddings=32
        )
        imagines.clip_std.data += 1  # as it is made, both are 0, and every prompt is the same picture
        imagines.clip_mean.data += torch.linspace(-0.5, 0.5, IMAGINED)
        return library.KandinskyV22PriorPipeline(
            prior=imagines,
            image_encoder=words.CLIPVisionModelWithProjection(vision).eval(),
            text_encoder=text_encoder(IMAGINED, projected=True),
            tokenizer=tokenizer(),
            scheduler=library.UnCLIPScheduler(
                variance_type="fixed_small_log", prediction_type="sample", clip_sample=True, clip_sample_range=5.0
            ),
            image_processor=words.CLIPImageProcessorPil(size=32, crop_size=32),
        )

    def decoder() -> Any:
        return library.KandinskyV22Pipeline(
            unet=library.UNet2DConditionModel(
                sample_size=8, in_channels=4, out_channels=8, block_out_channels=(8, 16), norm_num_groups=4,
                layers_per_block=1, addition_embed_type="image", encoder_hid_dim=IMAGINED,
                encoder_hid_dim_type="image_proj", cross_attention_dim=16, attention_head_dim=4,
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn", resnet_time_scale_shift="scale_shift",
            ),
            movq=library.VQModel(
                # attention at the coarsest level only, as the published one has it: over all pixels it takes seconds
                block_out_channels=(32, 32, 32, 32),
                down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
                up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3, latent_channels=4,
                num_vq_embeddings=16, norm_num_groups=4, vq_embed_dim=4, norm_type="spatial", layers_per_block=1,
            ),
            scheduler=library.DDPMScheduler(
                beta_schedule="linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, thresholding=True,
                sample_max_value=2.0, variance_type="learned_range",
            ),
        )  # fmt: skip

    save(folder / "prior", prior, 5)
    return save(folder / "decoder", decoder, 6)


T5_WINDOW = 48
"""Tokens that the T5 tokenizer of a tiny model says it reads, the marker at the end included."""


def t5_tokenizer() -> Any:
    """A true T5 tokenizer with the letters and few words."""
    words = ["a", "red", "blue", "green", "ball", "cube", "cone", "grass", "and", "on"]
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz,.", *(f"▁{word}" for word in words)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = special + [(piece, -1.0 - number / 10) for number, piece in enumerate(reversed(pieces))]
    return transformers().T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=T5_WINDOW)


T5 = 24
"""Width of the T5 text encoder."""


def t5_encoder(width: int = T5) -> Any:
    library = transformers()
    config = library.T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False,
    )  # fmt: skip
    return library.T5EncoderModel(config).eval()


def randomised(network: Any) -> Any:
    """With random numbers where a network starts at zero, so that every input of it makes a difference."""
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return network


CLIP_SD3 = WIDTH + POOLED
"""Width of what the two CLIP text encoders of SD3 say side by side."""
JOINT_SD3 = 80
"""Width of the T5 text encoder of SD3, which is more."""


def sd3(folder: Path, *, t5: bool = True, seed: int = 0) -> Path:
    """All three text encoders, or only the two of CLIP; shifted timesteps as SD3 ships them."""
    library = diffusers()

    def build() -> Any:
        transformer = library.SD3Transformer2DModel(
            sample_size=8, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=JOINT_SD3, caption_projection_dim=16,
            pooled_projection_dim=CLIP_SD3, pos_embed_max_size=16, qk_norm="rms_norm", dual_attention_layers=(0,),
        )  # fmt: skip
        return library.StableDiffusion3Pipeline(
            vae=autoencoder(
                latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=text_encoder(projected=True),
            text_encoder_2=text_encoder(POOLED, projected=True, activation="gelu"),
            text_encoder_3=t5_encoder(JOINT_SD3) if t5 else None,
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            tokenizer_3=t5_tokenizer() if t5 else None,
            transformer=randomised(transformer),
            scheduler=library.FlowMatchEulerDiscreteScheduler(shift=3.0),
        )  # fmt: skip

    return save(folder, build, seed)


def flux(folder: Path, *, schnell: bool = False, seed: int = 0) -> Path:
    """dev, whose schedule depends on the size of the picture, or schnell."""
    library = diffusers()

    def build() -> Any:
        transformer = library.FluxTransformer2DModel(
            in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=T5, pooled_projection_dim=WIDTH, guidance_embeds=not schnell, axes_dims_rope=(4, 6, 6),
        )  # fmt: skip
        return library.FluxPipeline(
            vae=autoencoder(
                latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=text_encoder(),
            text_encoder_2=t5_encoder(),
            tokenizer=tokenizer(),
            tokenizer_2=t5_tokenizer(),
            transformer=randomised(transformer),
            scheduler=library.FlowMatchEulerDiscreteScheduler(
                shift=1.0 if schnell else 3.0, use_dynamic_shifting=not schnell
            ),
        )  # fmt: skip

    return save(folder, build, seed)


QWEN = 24
"""Width of the Qwen3 text encoder."""

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def qwen_tokenizer() -> Any:
    """A true tokenizer of Qwen with a letter a token, and its chat template as far as one question goes."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, *special])}
    return transformers().Qwen2Tokenizer(
        vocab=vocabulary, merges=[], extra_special_tokens=list(special), eos_token="<|im_end|>", chat_template=CHAT,
        model_max_length=131072,
    )  # fmt: skip


def qwen_encoder(width: int = QWEN) -> Any:
    library = transformers()
    config = library.Qwen3Config(
        vocab_size=len(qwen_tokenizer()), hidden_size=width, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=1024,
    )  # fmt: skip
    return library.Qwen3Model(config).eval()


def z_image(folder: Path, *, turbo: bool = True, seed: int = 0) -> Path:
    """Z-Image-Turbo, or the model that is not distilled, whose schedule is shifted twice as far."""
    library = diffusers()

    def build() -> Any:
        transformer = library.ZImageTransformer2DModel(
            dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=QWEN, axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        )  # fmt: skip
        return library.ZImagePipeline(
            vae=autoencoder(
                latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            text_encoder=qwen_encoder(),
            tokenizer=qwen_tokenizer(),
            transformer=randomised(transformer),
            scheduler=library.FlowMatchEulerDiscreteScheduler(shift=3.0 if turbo else 6.0),
        )  # fmt: skip

    return save(folder, build, seed)


def controlnet(folder: Path, model: Path) -> Path:
    """A depth ControlNet for the UNet of ``model``, whose answers are not zero as they are before any training."""
    library = diffusers()

    def build() -> Any:
        steered = library.UNet2DConditionModel.from_pretrained(str(model / "unet"))
        made = library.ControlNetModel.from_unet(steered, conditioning_embedding_out_channels=(8, 8, 8, 8))
        with torch.no_grad():
            silent = [made.controlnet_cond_embedding.conv_out, made.controlnet_mid_block, *made.controlnet_down_blocks]
            for layer in silent:
                torch.nn.init.normal_(layer.weight, std=0.2)
        return made

    return save(folder, build, 7)


def latent_upscaler(folder: Path, model: Path) -> Path:
    """An x2 upscaler in the latents of ``model``: blocks of k-diffusion, Fourier features of the noise level.

    Its condition is 128 values for the noise level beside the pooled prompt; of five channels the last is dropped.
    """
    library = diffusers()

    def build() -> Any:
        return library.StableDiffusionLatentUpscalePipeline(
            vae=library.AutoencoderKL.from_pretrained(str(model / "vae")),
            text_encoder=text_encoder(),
            tokenizer=tokenizer(),
            unet=library.UNet2DConditionModel(
                sample_size=16, in_channels=8, out_channels=5, block_out_channels=(32, 64, 64), layers_per_block=1,
                down_block_types=("KDownBlock2D", "KCrossAttnDownBlock2D", "KCrossAttnDownBlock2D"),
                up_block_types=("KCrossAttnUpBlock2D", "KCrossAttnUpBlock2D", "KUpBlock2D"), mid_block_type=None,
                cross_attention_dim=WIDTH, attention_head_dim=8, act_fn="gelu", norm_num_groups=None,
                conv_in_kernel=1, conv_out_kernel=1, resnet_time_scale_shift="scale_shift",
                time_embedding_type="fourier", timestep_post_act="gelu", time_cond_proj_dim=128 + WIDTH,
            ),
            scheduler=library.EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="sample"
            ),
        )  # fmt: skip

    return save(folder, build, 8)


def upscaler(folder: Path) -> Path:
    """An x4 upscaler: a UNet that is given noise, the small picture and its noise level; latent cells of 4 pixels."""
    library = diffusers()

    def build() -> Any:
        return library.StableDiffusionUpscalePipeline(
            vae=autoencoder(
                block_out_channels=(8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.08333,
            ),
            text_encoder=text_encoder(activation="gelu"),
            tokenizer=tokenizer(),
            unet=unet(WIDTH, in_channels=7, num_class_embeds=1000, use_linear_projection=True),
            low_res_scheduler=library.DDPMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear"),
            scheduler=library.DDIMScheduler(
                beta_start=0.0001, beta_end=0.02, clip_sample=False, prediction_type="v_prediction",
                set_alpha_to_one=False, steps_offset=1,
            ),
            max_noise_level=350,
        )  # fmt: skip

    return save(folder, build, 9)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "sdxl": sdxl,
    "sdxl-refiner": lambda folder: sdxl_refiner(folder / "refiner", sdxl(folder / "base")),
    "kandinsky-2.2": kandinsky,
    "sd3": sd3,
    "flux": flux,
    "flux-schnell": lambda folder: flux(folder, schnell=True),
    "z-image": lambda folder: z_image(folder, turbo=False),
    "z-image-turbo": z_image,
}
"""Makers of a model of each family that draws, besides the first Stable Diffusion."""
