"""Captions that say exactly what a scene shows, in many wordings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.pocket.scenes import COLORS, GROUNDS, SHAPES, SIZES, SKIES, STYLES, Scene, Thing

SHAPE_NAMES = {
    "sphere": ("sphere", "ball"),
    "cube": ("cube", "box"),
    "cone": ("cone",),
    "cylinder": ("cylinder",),
}
GROUND_NAMES = {
    "grass": ("green grass", "grass", "a green meadow"),
    "sand": ("sand", "yellow sand", "a sandy beach"),
    "snow": ("snow", "white snow"),
    "water": ("water", "blue water", "the sea"),
    "stone": ("stone", "grey stone", "a stone floor"),
    "checker": ("a checkered floor", "a checkerboard"),
    "wood": ("a wooden floor", "wood"),
}
SKY_NAMES = {
    "blue": ("a blue sky", "a clear blue sky", "a sunny sky"),
    "pink": ("a pink sky",),
    "orange": ("an orange sky", "a sunset sky"),
    "purple": ("a purple sky",),
    "grey": ("a grey sky", "a gray sky", "a cloudy sky"),
    "night": ("a night sky", "a dark sky", "a starry night sky"),
}
PICTURE_NAMES = ("a picture of", "an image of", "a photo of", "a render of")
PRAISE = ("high quality", "sharp", "detailed", "best quality", "sharp, high quality")
BLAME = ("blurry, low quality", "blurry", "low quality", "blurry, low quality, noisy", "bad quality")
EXTRA_WORDS = (
    "the with scene large tiny little middle centre left right top bottom front behind next near above below one two "
    "three gray colored colours red green house tree cat dog man woman car worst ugly photo photograph drawing "
    "painting beautiful bright empty background landscape nothing object objects no not without"
)
"""Words that no caption has but that people type: each gets a token of its own, if an untrained one."""


def _article(text: str) -> str:
    return ("an " if text[0] in "aeiou" else "a ") + text


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _name(thing: Thing, rng: np.random.Generator) -> str:
    size = "" if thing.size == "normal" else thing.size + " "
    return _article(f"{size}{thing.color} {_pick(rng, SHAPE_NAMES[thing.shape])}")


def _things(scene: Scene, rng: np.random.Generator, places: bool) -> str:
    """Names the things. "A and B" and lists always go from left to right; a lone thing without a place is central.

    Without `places` nothing but the order is said.
    """
    names = [_name(thing, rng) for thing in scene.things]
    chance = rng.random()
    if not names:
        return ""
    if not places:
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    if len(names) == 1:
        slot = scene.things[0].slot
        if slot == "center":
            return names[0] + ("" if chance < 0.5 else " in the center" if chance < 0.8 else " in the middle")
        return f"{names[0]} on the {slot}" if chance < 0.85 else f"on the {slot} {names[0]}"
    if len(names) == 2:
        if chance < 0.6:
            return f"{names[0]} and {names[1]}"
        if chance < 0.8:
            return f"{names[0]} to the left of {names[1]}"
        return f"{names[1]} to the right of {names[0]}"
    if chance < 0.7:
        return f"{names[0]}, {names[1]} and {names[2]}"
    if chance < 0.85:
        return f"{names[0]} and {names[1]} and {names[2]}"
    return f"{names[1]} between {names[0]} and {names[2]}"


def _place(scene: Scene, rng: np.random.Generator, named_ground: bool, named_sky: bool) -> str:
    ground = " on " + _pick(rng, GROUND_NAMES[scene.ground]) if named_ground else ""
    sky = " under " + _pick(rng, SKY_NAMES[scene.sky]) if named_sky else ""
    return ground + sky


def _bare(scene: Scene, rng: np.random.Generator) -> str:
    """A background without things: "green grass under a blue sky"."""
    ground, sky = _pick(rng, GROUND_NAMES[scene.ground]), _pick(rng, SKY_NAMES[scene.sky])
    chance = rng.random()
    if chance < 0.6:
        return f"{ground} under {sky}"
    if chance < 0.75:
        return f"an empty scene, {ground} under {sky}"
    return ground if chance < 0.85 else sky if chance < 0.95 else "an empty scene"


def _styled(text: str, style: str, rng: np.random.Generator) -> str:
    chance = rng.random()
    if style == "none":
        return text if chance < 0.9 else f"{_pick(rng, PICTURE_NAMES)} {text}"
    named = style if style in ("pixel art", "watercolor") and chance < 0.9 else _article(style)
    if chance < 0.45:
        return f"{text}, {style}"
    if chance < 0.75:
        return f"{style} of {text}"
    if chance < 0.9:
        return f"{_article(style) if style != 'pixel art' else style} of {text}"
    return f"{text}, drawn as {'pixel art' if style == 'pixel art' else named}"


def loose_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A wording that leaves to a depth map what it shows: no places, often no things, sometimes nothing at all."""
    chance = rng.random()
    if chance < 0.15:
        return ""
    if chance < 0.45:
        return _styled(_place(scene, rng, True, chance < 0.38).removeprefix(" on "), scene.style, rng)
    return caption(scene, rng, places=False)


def caption(scene: Scene, rng: np.random.Generator, *, full: bool = False, places: bool = True) -> str:
    """One wording of the scene; with `full` it always names ground and sky and adds no word of praise.

    Without `places` it does not say where things stand, but for their order from left to right.
    """
    chance, quality = rng.random(), rng.random()
    if scene.degraded and quality < 0.35:
        return _pick(rng, BLAME)
    if not scene.things:
        text = _bare(scene, rng)
    else:
        named_ground = full or chance < 0.80 or chance >= 0.92
        named_sky = full or chance < 0.86
        if 0.86 <= chance < 0.92 and not full:
            named_ground = named_sky = False
        text = _things(scene, rng, places) + _place(scene, rng, named_ground, named_sky)
    text = _styled(text, scene.style, rng)
    if scene.degraded:
        return f"{text}, {_pick(rng, BLAME)}"
    return f"{text}, {_pick(rng, PRAISE)}" if not full and quality < 0.04 else text


def all_words() -> list[str]:
    """Every word a caption can have, and `EXTRA_WORDS`, sorted."""
    texts: list[str] = [*COLORS, *SHAPES, *SIZES, *GROUNDS, *SKIES, *STYLES, *PICTURE_NAMES, *PRAISE, *BLAME]
    for names in (SHAPE_NAMES, GROUND_NAMES, SKY_NAMES):
        texts += [name for choices in names.values() for name in choices]
    texts += ["a an and on in the of to left right center middle between under drawn as empty scene", EXTRA_WORDS]
    return sorted({word for text in texts for word in text.replace(",", " ").split()} | {",", "."})
