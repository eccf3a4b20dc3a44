"""``graphflow models``, against a hub on this machine: what is listed, what is fetched and what never is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET_FOLDER
from tests.helpers.command_line import Command, Done
from tests.helpers.fake_hub import COMMIT, Hub, serving
from tests.helpers.original_layout import save_header_only
from tests.helpers.published import original

PIPELINE: dict[str, bytes] = {
    str(path.relative_to(POCKET_FOLDER / "base")): path.read_bytes()
    for path in sorted((POCKET_FOLDER / "base").rglob("*"))
    if path.is_file()
}
"""The pocket model, as a repository would hold it."""

CLUTTER = {
    "painter.ckpt": b"pickle",
    "painter.safetensors": b"all in one",
    "unet/diffusion_pytorch_model.bin": b"pickle",
    "unet/diffusion_pytorch_model.non_ema.safetensors": b"other weights",
    "vae/model.onnx": b"onnx",
    "safety_checker/model.safetensors": b"unused",
    "safety_checker/config.json": b"{}",
    "README.md": b"read me",
}
"""Other files of repositories, which are not fetched."""


def halves(*components: str) -> dict[str, bytes]:
    """Variants in half precision; what they hold is not looked at here."""
    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    return {
        f"{name}/{stems[name]}.fp16.safetensors": PIPELINE[f"{name}/{stems[name]}.safetensors"] for name in components
    }


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub({"someone/painter": {**PIPELINE, **CLUTTER}})) as running:
        yield running


@pytest.fixture
def models(hub: Hub, tmp_path: Path) -> Command:
    """``graphflow models`` in a process of its own, since huggingface_hub reads its environment once."""

    def run(*words: str, **environment: str) -> Done:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables = {
            **clean,
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "OMP_NUM_THREADS": "1",
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        done = subprocess.run(
            [sys.executable, "-m", "graphflow", "models", *words],
            capture_output=True, text=True, cwd=tmp_path, env=variables, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def workflow(folder: Path, *references: str) -> str:
    nodes = {
        f"draw{number}": {"type": "Text2Image", "model": reference, "prompt": "a red ball"}
        for number, reference in enumerate(references)
    }
    (folder / "w.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    return "w.json"


def cached(folder: Path) -> set[str]:
    """Files in the cache, as ``repository/file``."""
    hub = folder / "hf" / "hub"
    found = set()
    for snapshot in hub.glob(f"models--*/snapshots/{COMMIT}"):
        repository = snapshot.parents[1].name.removeprefix("models--").replace("--", "/")
        found |= {f"{repository}/{path.relative_to(snapshot)}" for path in snapshot.rglob("*") if path.is_file()}
    return found


def of(repository: str, files: Mapping[str, bytes]) -> set[str]:
    return {f"{repository}/{name}" for name in files}


def test_what_a_workflow_needs_is_fetched_and_nothing_else(models: Command, hub: Hub, tmp_path: Path) -> None:
    file = workflow(tmp_path, "someone/painter")
    listed = models("list", file)
    assert listed.status == 3
    assert "not on this machine" in listed.out
    assert "(needed by 'draw0')" in listed.err
    assert 'graphflow models pull "someone/painter"' in listed.err
    done = models("pull", file)
    assert (done.status, done.out) == (0, "")
    assert cached(tmp_path) == of("someone/painter", PIPELINE)
    assert "someone/painter@main (commit 01234567)" in done.err
    assert done.err.index("to download") < done.err.index("[1/")
    listed = models("list", file)
    assert (listed.status, listed.err) == (0, "")
    assert listed.out.splitlines()[1].split()[:3] == ["someone/painter", "stable-diffusion", "pocket"]
    assert "64 x 64" in listed.out
    asked = len(hub.asked)
    again = models("pull", file)
    assert (again.status, "nothing to download" in again.err, len(hub.asked)) == (0, True, asked)


def test_models_of_coarse_nodes_are_listed_with_every_network(models: Command, tmp_path: Path) -> None:
    nodes = {
        "photo": {"type": "LoadImage", "path": "absent.png"},
        "draw": {
            "type": "ControlNetDepth",
            "image": {"from": "photo"},
            "prompt": "a red ball",
            "controlnet": "someone/depth-net",
            "depth_estimator": "someone/estimator",
        },
    }
    (tmp_path / "w.json").write_text(json.dumps({"graphflow": 1, "nodes": nodes}))
    done = models("list", "w.json", "--json")
    assert [model["reference"] for model in json.loads(done.out)] == [
        "pocket",
        "someone/depth-net",
        "someone/estimator",
    ]


def test_a_list_as_json(models: Command, tmp_path: Path) -> None:
    file = workflow(tmp_path, "pocket", "someone/painter", "pocket")
    done = models("list", file, "--json")
    assert done.status == 3
    here, absent = json.loads(done.out)
    assert (here["reference"], here["nodes"], here["family"]) == ("pocket", ["draw0", "draw2"], "stable-diffusion")
    assert (here["space"], here["width"], here["present"], here["problems"]) == ("pocket", 64, True, [])
    assert here["bytes"] > 10**6
    assert (absent["present"], absent["bytes"], absent["nodes"]) == (False, None, ["draw1"])
    assert absent["problems"][0]["code"] == "missing.model"


def test_half_precision_is_fetched_where_there_is_one(models: Command, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["someone/painter"] = {**PIPELINE, **halves("unet", "vae")}
    assert models("pull", "someone/painter").status == 0
    found = {name.removeprefix("someone/painter/") for name in cached(tmp_path)}
    assert {name for name in found if name.endswith(".safetensors")} == {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "text_encoder/model.safetensors",
    }


def test_plain_weights_are_fetched_where_they_are_asked_for(models: Command, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["someone/painter"] = {**PIPELINE, **halves("unet", "vae", "text_encoder")}
    assert models("pull", "someone/painter", "--variant", "none").status == 0
    assert not [name for name in cached(tmp_path) if "fp16" in name]


def test_shards_are_fetched_with_their_index(models: Command, hub: Hub, tmp_path: Path) -> None:
    stem = "unet/diffusion_pytorch_model"
    files = {name: content for name, content in PIPELINE.items() if name != f"{stem}.safetensors"}
    shards = {
        f"{stem}.safetensors.index.json": b'{"weight_map": {}}',
        f"{stem}-00001-of-00002.safetensors": b"1",
        f"{stem}-00002-of-00002.safetensors": b"2",
    }
    hub.repositories["someone/painter"] = {**files, **shards, f"{stem}.fp16-00001-of-00002.safetensors": b"half a set"}
    assert models("pull", "someone/painter").status == 0
    assert cached(tmp_path) == of("someone/painter", {**files, **shards})


def test_a_dry_run_tells_and_fetches_no_weights(models: Command, hub: Hub, tmp_path: Path) -> None:
    done = models("pull", "someone/painter", "--dry-run")
    assert done.status == 0
    assert "  unet/diffusion_pytorch_model.safetensors (" in done.err
    assert "to download" in done.err
    assert hub.asked == ["someone/painter/model_index.json"]


def test_every_part_of_a_reference_is_fetched(models: Command, hub: Hub, tmp_path: Path) -> None:
    hub.repositories |= {
        "someone/style": {"style.safetensors": b"lora", "README.md": b"", "old.ckpt": b"pickle"},
        "someone/styles": {"one.safetensors": b"lora", "two.safetensors": b"lora"},
        "someone/vae": {"config.json": b"{}", "diffusion_pytorch_model.safetensors": b"vae", "vae.ckpt": b"pickle"},
    }
    reference = "someone/painter + lora:someone/style*0.5 + lora:someone/styles/two.safetensors + vae:someone/vae"
    assert models("pull", workflow(tmp_path, reference)).status == 0
    assert cached(tmp_path) == {
        *of("someone/painter", PIPELINE),
        "someone/style/style.safetensors",
        "someone/styles/two.safetensors",
        "someone/vae/config.json",
        "someone/vae/diffusion_pytorch_model.safetensors",
    }
    refused = models("pull", "pocket + lora:someone/styles")
    assert (refused.status, "[model.choice]" in refused.err) == (2, True)
    assert "one.safetensors, two.safetensors" in refused.err


def test_a_single_network_is_fetched(models: Command, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["someone/depth"] = {
        "config.json": b"{}",
        "diffusion_pytorch_model.safetensors": b"plain",
        "diffusion_pytorch_model.fp16.safetensors": b"half",
        "diffusion_pytorch_model.bin": b"pickle",
    }
    assert models("pull", "someone/depth").status == 0
    names = {name.rpartition("/")[2] for name in cached(tmp_path)}
    assert names == {"config.json", "diffusion_pytorch_model.fp16.safetensors"}


KANDINSKY = {
    "decoder": {"unet": "UNet2DConditionModel", "movq": "VQModel", "scheduler": "DDPMScheduler"},
    "prior": {
        "prior": "PriorTransformer",
        "text_encoder": "CLIPTextModelWithProjection",
        "image_encoder": "CLIPVisionModelWithProjection",
        "image_processor": "CLIPImageProcessor",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "UnCLIPScheduler",
    },
}


def kandinsky(part: str) -> dict[str, bytes]:
    index: dict[str, Any] = {
        "_class_name": "KandinskyV22Pipeline" if part == "decoder" else "KandinskyV22PriorPipeline"
    }
    index |= {name: ["library", cls] for name, cls in KANDINSKY[part].items()}
    files = {"model_index.json": json.dumps(index).encode(), "README.md": b"---\nprior:\n- someone/k-prior\n---\n"}
    for name in KANDINSKY[part]:
        files[f"{name}/config.json"] = b"{}"
        if name not in ("scheduler", "tokenizer", "image_processor"):
            files[f"{name}/model.safetensors"] = b"weights"
    return files


@pytest.mark.parametrize("named", [True, False])
def test_the_prior_of_a_decoder_is_fetched_too(named: bool, models: Command, hub: Hub, tmp_path: Path) -> None:
    decoder, prior = ("someone/k-drawer", "someone/k-prior") if named else ("someone/k-decoder", "someone/k-prior")
    hub.repositories |= {decoder: kandinsky("decoder"), prior: kandinsky("prior")}
    hub.cards[decoder] = {"prior": [prior]} if named else {}
    assert models("pull", decoder).status == 0
    needed = {name: b"" for name in kandinsky("prior") if not name.startswith(("image_processor", "README"))}
    assert cached(tmp_path) == of(decoder, kandinsky("decoder")) | of(prior, needed)


def test_one_file_brings_the_vocabulary_it_lacks(models: Command, hub: Hub, tmp_path: Path) -> None:
    save_header_only(original("stable-diffusion-1"), tmp_path / "local.safetensors")
    words = json.dumps({f"w{number}": number for number in range(49408)}).encode()
    hub.repositories["openai/clip-vit-large-patch14"] = {
        "vocab.json": words,
        "merges.txt": b"#version: 0.2\n",
        "tokenizer_config.json": b"{}",
        "pytorch_model.bin": b"pickle",
        "model.safetensors": b"the whole of CLIP",
    }
    done = models("pull", "local.safetensors")
    assert done.status == 0, done.err
    assert cached(tmp_path) == {
        f"openai/clip-vit-large-patch14/{name}" for name in ("vocab.json", "merges.txt", "tokenizer_config.json")
    }
    listed = models("list", "local.safetensors")
    assert (listed.status, "stable-diffusion" in listed.out, "512 x 512" in listed.out) == (0, True, True)


def test_one_file_of_a_repository_is_fetched_alone(models: Command, hub: Hub, tmp_path: Path) -> None:
    reference = f"someone/painter@{COMMIT}/painter.safetensors"
    assert "painter.safetensors" in models("pull", reference).err
    assert cached(tmp_path) == {"someone/painter/painter.safetensors"}
    absent = models("pull", "someone/painter/nothing.safetensors")
    assert (absent.status, "has no file nothing.safetensors" in absent.err) == (3, True)


def test_pickles_are_never_fetched(models: Command, hub: Hub, tmp_path: Path) -> None:
    stem = "unet/diffusion_pytorch_model"
    files = {name: content for name, content in PIPELINE.items() if name != f"{stem}.safetensors"}
    hub.repositories["someone/painter"] = {**files, f"{stem}.bin": b"pickle"}
    done = models("pull", "someone/painter")
    assert (done.status, "[model.pickle_only]" in done.err) == (2, True)
    assert not [name for name in cached(tmp_path) if name.endswith((".bin", ".safetensors"))]


@pytest.mark.parametrize(
    ("reference", "environment", "text"),
    [
        ("someone/nothing", {}, 'the Hub has no repository "someone/nothing", or it is private'),
        ("someone/painter@v9", {}, 'the repository "someone/painter" has no revision v9'),
        ("someone/closed", {}, "is open only to those who agreed to its terms"),
        ("someone/painter", {"HF_HUB_OFFLINE": "1"}, "cannot be asked for: HF_HUB_OFFLINE is set"),
        ("someone/painter", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be fetched: "),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_and_status_3(
    reference: str, environment: dict[str, str], text: str, models: Command, hub: Hub, tmp_path: Path
) -> None:
    hub.repositories["someone/closed"] = PIPELINE
    hub.gated = ("someone/closed",)
    done = models("pull", workflow(tmp_path, reference), **environment)
    assert done.status == 3
    first, *rest = done.err.strip().splitlines()
    assert (text in first, "needed by 'draw0'" in first, "[missing.repository]" in first) == (True,) * 3, done.err
    assert len(rest) == 2


def test_a_token_opens_what_is_gated(models: Command, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["someone/closed"] = PIPELINE
    hub.gated = ("someone/closed",)
    assert models("pull", "someone/closed", HF_TOKEN="hf_secret").status == 0
    assert set(hub.tokens) == {"Bearer hf_secret"}
    assert of("someone/closed", PIPELINE) <= cached(tmp_path)


def test_refusals_are_told_all_at_once(models: Command, tmp_path: Path) -> None:
    done = models("pull", workflow(tmp_path, "a/b + lora:c/d", "pocket + lora:e/f*x", "./nowhere"))
    assert done.status == 2
    codes = [line.rpartition("[")[2].rstrip("]") for line in done.err.splitlines() if line.endswith("]")]
    assert sorted(codes) == ["missing.model", "missing.repository", "missing.repository", "model.reference"]


def test_models_of_another_pack_or_none(graphflow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys.modules["graphflow.nodes"], "MODEL_LIBRARY")
    done = graphflow("models", "list", "pocket")
    assert (done.status, "no installed node pack knows models" in done.err) == (2, True)


@pytest.mark.parametrize("words", [("fetch", "pocket"), ("pull",), ("list",), ("pull", "pocket", "--variant", "int8")])
def test_a_wrong_command_line_is_told(words: tuple[str, ...], graphflow: Callable[..., Any]) -> None:
    done = graphflow("models", *words)
    assert (done.status, "graphflow models --help" in done.err) == (2, True)


def test_listing_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom graphflow.cli import main\n"
        "assert main(['models', 'list', 'pocket', 'pocket-depth']) == 0\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'PIL', 'numpy', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
