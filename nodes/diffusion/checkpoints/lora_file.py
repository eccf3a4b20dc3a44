"""LoRAs described by the headers of their files: the components they change, and their fit to a model.

The layouts are the two that diffusers reads: its own (``unet.down_blocks.0….lora_A.weight``, older ones with
``.lora.down.weight``), and that of kohya's scripts, with names flattened by underscores
(``lora_unet_down_blocks_0_….lora_down.weight``). In both the change of a matrix (out, in) is the product of "up"
(out, rank) and "down" (rank, in), whose shapes give the widths of the model that the LoRA was trained for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphflow import Problem
from graphflow.nodes.diffusion.checkpoints.location import locate, model_problem, pickle_problem
from graphflow.nodes.diffusion.checkpoints.model_files import Component, UnusableError, check_whole
from graphflow.nodes.diffusion.checkpoints.safetensors_header import Header, Shape
from graphflow.nodes.diffusion.families import Family, LoraLayout

__all__ = ["LoraFile", "open_lora"]

USUAL_NAME = "pytorch_lora_weights.safetensors"
"""The file name under which diffusers saves a LoRA."""

_MADE_FOR = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "Stable Diffusion XL",
    1280: "the SDXL refiner",
}
"""Models by the width of the text encoding that their UNet takes."""

_FLAT = {
    "lora_unet_": "denoiser",
    "lora_transformer_": "denoiser",
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
_DOTTED = {
    "unet.": "denoiser",
    "transformer.": "denoiser",
    "diffusion_model.": "denoiser",
    "text_encoder.": "text_encoder",
    "text_encoder_2.": "text_encoder_2",
    "text_encoder_3.": "text_encoder_3",
}
"""Components by the beginnings of their tensors' names: here with dots, in `_FLAT` flattened."""

_ENDING = re.compile(
    r"(?P<module>.*?)(?:\.processor)?(?P<old>[._](?:to_[qkv]|to_out)_lora)?"
    r"(?:\.lora(?:_linear_layer)?)?\.(?P<side>lora_down|lora_up|lora_A|lora_B|down|up)(?:\.\w+)?\.weight"
)


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A LoRA; ``modules`` maps each component to the matrices that change: flattened name to (out, in)."""

    reference: str
    path: Path
    modules: Mapping[str, Mapping[str, tuple[int, int]]]

    def changes(self, name: str) -> bool:
        """Return whether it changes a component; "unet" and "transformer" both mean the denoiser."""
        return _part(name) in self.modules

    def misfit(self, model: str, family: Family, classes: Mapping[str, str], components: Mapping[str, Component],
               configs: Mapping[str, Mapping[str, Any]]) -> Problem | None:  # fmt: skip
        """Return the reason why it does not fit a model, None where it fits; ``model`` names that in messages."""
        names = {_part(name): name for name in classes}
        for part in self.modules:
            if part not in names:
                return self._problem(model, f"changes for a {part}", f"only {', '.join(sorted(classes))}")
        for part, modules in self.modules.items():
            name = names[part]
            for found, expected in _differences(modules, name, family, classes[name], components[name], configs[name]):
                return self._problem(model, found, expected)
        return None

    def _problem(self, model: str, found: str, expected: str) -> Problem:
        message = f'the LoRA "{self.reference}" is not made for the model "{model}": found {found}, expected {expected}'
        return model_problem("model.lora", message, "choose a LoRA that was trained for this model, or its model")


def open_lora(reference: str) -> LoraFile:
    """Read which matrices a LoRA changes. Raises UnusableError for one missing, damaged or unknown to diffusers."""
    found = locate(reference, "LoRA")
    if isinstance(found, Problem):
        raise UnusableError(found)
    path = found if found.is_file() else _file_in(reference, found)
    header = check_whole(reference, path, "LoRA")
    modules = _modules(header)
    if not modules:
        raise UnusableError(_unreadable(reference, header))
    if any("dora_scale" in name for name in header.shapes):
        message = f'the LoRA "{reference}" is a DoRA, whose magnitudes diffusers leaves out; expected a LoRA'
        raise UnusableError(model_problem("model.lora", message, "choose a LoRA"))
    return LoraFile(reference, path, modules)


def _file_in(reference: str, folder: Path) -> Path:
    """Return the one LoRA in a folder. Raises UnusableError where there is none, or where several might be meant."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1 or (folder / USUAL_NAME) in files:
        return folder / USUAL_NAME if (folder / USUAL_NAME) in files else files[0]
    if files:
        names = ", ".join(path.name for path in files[:8])
        message = f'"{reference}" holds {len(files)} files, expected the name of one LoRA: {names}'
        hint = f"write lora:{reference.rstrip('/')}/{files[0].name}"
        raise UnusableError(model_problem("model.lora", message, hint))
    pickled = sorted(path for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".ckpt"))
    if pickled:
        raise UnusableError(pickle_problem(f'{pickled[0].name} of the LoRA "{reference}"', str(pickled[0])))
    message = f'there is no .safetensors file of the LoRA "{reference}" in {folder}'
    raise UnusableError(model_problem("missing.model_file", message, "fetch it again, whole"))


def _unreadable(reference: str, header: Header) -> Problem:
    if any(".hada_" in name or ".lokr_" in name for name in header.shapes):
        message = f'the LoRA "{reference}" is a LoHa or LoKr, which diffusers cannot read; expected a LoRA'
    else:
        first = ", ".join(sorted(header.shapes)[:3]) or "nothing"
        message = f'the file of the LoRA "{reference}" is no LoRA (its tensors: {first[:160]}…)'
    return model_problem("model.lora", message, "choose a LoRA in the layout of diffusers or of kohya's scripts")


def _part(name: str) -> str:
    return "denoiser" if name in ("unet", "transformer") else name


def _modules(header: Header) -> dict[str, dict[str, tuple[int, int]]]:
    """Return (out, in) of each matrix that changes, by component and flattened name."""
    sides: dict[tuple[str, str], dict[str, Shape]] = {}
    for name, shape in header.shapes.items():
        match = _ENDING.fullmatch(name)
        if match is None or len(shape) < 2:
            continue
        module = match["module"] + (match["old"] or "").removesuffix("_lora")
        part, rest = _split(module)
        side = "down" if match["side"] in ("lora_down", "lora_A", "down") else "up"
        sides.setdefault((part, _flattened(rest)), {})[side] = shape
    modules: dict[str, dict[str, tuple[int, int]]] = {}
    for (part, module), found in sides.items():
        if len(found) == 2:
            modules.setdefault(part, {})[module] = (found["up"][0], found["down"][1])
    return modules


def _split(module: str) -> tuple[str, str]:
    for prefix, part in (*_FLAT.items(), *_DOTTED.items()):
        if module.startswith(prefix):
            return part, module[len(prefix) :]
    return "denoiser", module.removeprefix("base_model.model.")


def _flattened(name: str) -> str:
    flat = name.replace(".", "_").removeprefix("text_model_")
    return re.sub(r"_to_out$", "_to_out_0", flat)


def _differences(modules: Mapping[str, tuple[int, int]], name: str, family: Family, cls: str, component: Component,
                 config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:  # fmt: skip
    """Yield (found, expected) for each matrix whose size differs from that of the component."""
    for module, (_, width) in modules.items():
        expected = _text_width(module, cls, config)
        if expected is not None and width != expected:
            names = f" ({_MADE_FOR[width]})" if width in _MADE_FOR else ""
            yield f"{module}, which takes a text encoding of {width}{names}", f"{expected}"
    own = _matrices(component)
    known = {module: size for module, size in modules.items() if module in own}
    for module, size in known.items():
        if size != own[module]:
            yield f"{module} of {size[0]} x {size[1]}", f"{own[module][0]} x {own[module][1]}"
    if known:
        return
    layout = family.lora if name == family.denoiser else None
    for module, (_, width) in modules.items():
        inner = _inner_width(module, layout, cls, config)
        if inner is not None and width != inner:
            yield f"{module} of width {width}", f"{inner}"
    if layout and layout.foreign and any(re.search(layout.foreign, module) for module in modules):
        yield f"{next(iter(modules))}", f"a part of {cls}"


def _text_width(module: str, cls: str, config: Mapping[str, Any]) -> int | None:
    if cls == "UNet2DConditionModel" and re.search(r"attn2_to_[kv]$", module):
        return int(config.get("cross_attention_dim", 1280))
    return None


def _inner_width(module: str, layout: LoraLayout | None, cls: str, config: Mapping[str, Any]) -> int | None:
    if cls.startswith("CLIPText") and re.search(r"self_attn_[qkv]_proj$", module):
        return int(config["hidden_size"])
    if layout and layout.width and re.search(layout.attention, module):
        return layout.width(config)
    return None


def _matrices(component: Component) -> dict[str, tuple[int, int]]:
    """Return (out, in) of the matrices in a component's files, by flattened name."""
    found: dict[str, tuple[int, int]] = {}
    for path in component.files:
        if path.suffix != ".safetensors":
            continue
        prefix = component.prefix if path == component.checkpoint else ""
        for tensor, shape in check_whole(path.name, path).starting(prefix).items():
            if tensor.endswith(".weight") and len(shape) >= 2:
                found[_flattened(tensor.removesuffix(".weight"))] = (shape[0], shape[1])
    return found
