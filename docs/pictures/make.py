"""Make the pictures of the README and of the other pages: ``python docs/pictures/make.py``.

Everything is drawn by the embedded pocket model through GraphFlow itself; the pictures are enlarged for the page.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import graphflow as gf
from graphflow.nodes import Image2Image, Text2Image

HERE = Path(__file__).parent
WORKFLOWS = HERE.parents[1] / "workflows"
SIDE = 224
MARGIN = 12
SUBJECT = "a red ball and a blue cube on green grass"


def styles() -> gf.Workflow:
    """One drawing, redrawn in three styles without leaving latent space."""
    workflow = gf.Workflow(description="One drawing, redrawn in three styles")
    draft = workflow.add("draft", Text2Image(seed=7), prompt=SUBJECT)
    workflow.output("drawn", draft)
    for style in ("pencil sketch", "watercolor", "pixel art"):
        name = style.replace(" ", "_")
        redrawn = workflow.add(name, Image2Image(strength=0.7, seed=11), image=draft, prompt=f"{style} of {SUBJECT}")
        workflow.output(style.replace(" ", "_"), redrawn)
    return workflow


def sheet(pictures: dict[str, Image.Image]) -> Image.Image:
    """Pictures in a row with their captions below."""
    font = ImageFont.load_default(15)
    width = MARGIN + len(pictures) * (SIDE + MARGIN)
    page = Image.new("RGB", (width, SIDE + 2 * MARGIN + 24), "white")
    pen = ImageDraw.Draw(page)
    for index, (caption, picture) in enumerate(pictures.items()):
        left = MARGIN + index * (SIDE + MARGIN)
        page.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, MARGIN))
        pen.text((left + SIDE / 2, SIDE + MARGIN + 14), caption, fill="#333", font=font, anchor="mm")
    return page


def family(out: Path) -> None:
    """What the two workflows of the README save, the first as it is, the second side by side."""
    run = gf.load(WORKFLOWS / "text_to_image_to_super_res.json").run(out=out, device="cpu")
    shutil.copyfile(run.files[0], HERE / "large.png")
    run = gf.load(WORKFLOWS / "controlnet_depth.json").run(out=out, device="cpu")
    saved = {path.stem: path for path in run.files}
    shown = {
        "a picture": WORKFLOWS / "pictures/ball_and_cube.png",
        "its depth, estimated": saved["depth"],
        "redrawn, depth held": saved["redrawn"],
        "a depth map": WORKFLOWS / "pictures/three_things_depth.png",
        "drawn into it": saved["drawn"],
    }
    sheet({caption: as_rgb(path) for caption, path in shown.items()}).save(HERE / "controlnet.png", optimize=True)


SETTINGS = {
    "image_to_image": {
        "watercolor": {},
        "cartoon": {"prompt": "cartoon of a red ball and a blue cube on green grass"},
        "other colours": {"prompt": "a yellow ball and a purple cube on green grass", "strength": 0.7},
    },
    "strength": {f"strength {strength:g}": {"strength": strength} for strength in (0.2, 0.5, 0.8, 1.0)},
    "guidance_scale": {f"guidance_scale {scale:g}": {"guidance_scale": scale} for scale in (1.0, 3.0, 6.0, 12.0)},
    "negative_prompt": {
        negative or "no negative prompt": {
            "prompt": "a red ball and a blue cube",
            "strength": 0.9,
            "negative_prompt": negative,
        }
        for negative in ("", "blurry, low quality", "a blue sky")
    },
    "prompt_weighting": {
        f"(snow){weight:g}": {"prompt": f"a red ball and a blue cube on (snow){weight:g}"}
        for weight in (0.2, 0.6, 1.0, 1.4)
    },
}
"""What docs/image-to-image.md gives image_to_image.json, or a file named like the sheet, by sheet and caption."""


def image_to_image(out: Path) -> None:
    """The sheets of docs/image-to-image.md."""
    start = as_rgb(WORKFLOWS / "pictures/ball_and_cube.png")
    for name, settings in SETTINGS.items():
        shown = {"the picture": start}
        file = WORKFLOWS / f"{name}.json"
        if not file.exists():
            file = WORKFLOWS / "image_to_image.json"
        for caption, inputs in settings.items():
            run = gf.load(file).run(out=out / name / caption, device="cpu", **inputs)
            shown[caption] = run["image"].to_pil()
        keep(name, shown)
    for name, begins, captions in (
        ("text_to_image_to_another_model", {}, {"draft": "drawn", "image": "redrawn"}),
        ("image_to_image_to_image", {"the picture": start}, {"first": "first", "second": "second", "image": "third"}),
        ("image_to_upscale_to_super_res", {"the picture": start}, {"image": "redrawn, eight times as large"}),
        (
            "controlnet_depth_to_image",
            {"the picture": start, "its depth map": as_rgb(WORKFLOWS / "pictures/ball_and_cube_depth.png")},
            {"held": "redrawn, depth held", "image": "in another style"},
        ),
    ):
        run = gf.load(WORKFLOWS / f"{name}.json").run(out=out / name, device="cpu")
        keep(name, begins | {caption: run[output].to_pil() for output, caption in captions.items()})


def sweep(out: Path) -> None:
    """The contact sheet of the README."""
    workflow = gf.load(WORKFLOWS / "image_to_image.json")
    run = workflow.run(out=out, device="cpu", sweep={"strength": [0.4, 0.7, 0.9], "seed": [1, 2, 3, 4]})
    (sheet,) = run.contact_sheets()
    with Image.open(sheet) as page:
        page.convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(HERE / "sweep.png", optimize=True)


def keep(name: str, pictures: dict[str, Image.Image]) -> None:
    """One sheet as a file beside this one."""
    sheet(pictures).save(HERE / f"{name}.png", optimize=True)


def as_rgb(path: Path) -> Image.Image:
    """A picture, or a grey one of 16 bits, with 8 bits a channel."""
    picture = Image.open(path)
    if picture.mode.startswith("I"):
        picture = picture.point(lambda value: value / 257).convert("L")
    return picture.convert("RGB")


def main() -> None:
    """Draw the demo sheet, the gallery, the pictures of the family, and those of the page on image to image."""
    with tempfile.TemporaryDirectory() as out:
        family(Path(out) / "family")
        image_to_image(Path(out) / "image_to_image")
        sweep(Path(out) / "sweep")
        run = styles().run(out=out, device="cpu")
        pictures = {
            name.replace("_", " "): run[name].to_pil() for name in ("drawn", "pencil_sketch", "watercolor", "pixel_art")
        }
        pictures = {"drawn": pictures.pop("drawn")} | {
            f"redrawn as {name}": picture for name, picture in pictures.items()
        }
        sheet(pictures).save(HERE / "demo.png", optimize=True)
        gallery = gf.Workflow()
        prompts = [
            "a yellow cone and a purple ball on snow under a pink sky",
            "a red cube, a yellow ball and a blue cone on sand under a blue sky",
            "a big orange ball on water under a night sky",
            "a green cylinder and a pink cube on a checkered floor under a purple sky",
        ]
        for index, prompt in enumerate(prompts):
            gallery.output(f"p{index}", gallery.add(f"n{index}", Text2Image(seed=3 + index), prompt=prompt))
        run = gallery.run(out=out, device="cpu")
        short = ["cone and ball on snow", "three on sand, in order", "big ball, night", "on a checkered floor"]
        sheet({caption: run[f"p{index}"].to_pil() for index, caption in enumerate(short)}).save(
            HERE / "gallery.png", optimize=True
        )


if __name__ == "__main__":
    main()
