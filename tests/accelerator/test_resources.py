"""Memory, kept results and switches on a real accelerator."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import graphflow as gf
from graphflow.cli import main
from graphflow.machine.memory import device_memory, free_memory
from graphflow.nodes import Image2Image, SaveImage, Text2Image
from graphflow.nodes.diffusion.loading.components import pool
from tests.helpers.drawing import PROMPT
from tests.helpers.numerics import difference

MB = 10**6


@pytest.fixture(autouse=True)
def _cuda(device: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("its memory is asked as CUDA's is")


def chain(first: str = "pocket", second: str = "pocket", *, side: int = 64, **fields: Any) -> gf.Workflow:
    w = gf.Workflow()
    seed = w.input("seed", "seed", default=1)
    draft = w.add(
        "draft", Text2Image(model=first, width=side, height=side, steps=3, **fields), prompt=PROMPT, seed=seed
    )
    redraw = Image2Image(model=second, steps=4, strength=0.5, seed=2)
    w.output("out", w.add("redraw", redraw, image=draft, prompt=PROMPT))
    return w


def drawn(device: str, **options: Any) -> torch.Tensor:
    found: torch.Tensor = chain().run(device=device, dtype="float32", cache=False, **options)["out"].pixels.cpu()
    return found


@pytest.mark.parametrize("offload", ["model", "sequential"])
@pytest.mark.usefixtures("empty_pool")
def test_offloading_draws_the_same_and_frees_the_device(offload: str, device: str) -> None:
    plain = drawn(device)
    pool.clear()
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    assert torch.equal(drawn(device, offload=offload), plain)
    peak = torch.cuda.max_memory_allocated() - before
    pool.clear()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    drawn(device)
    assert peak < torch.cuda.max_memory_allocated() - before


@pytest.mark.usefixtures("empty_pool")
def test_only_weights_stay_on_the_device_after_a_run(device: str) -> None:
    run = chain().run(device=device, cache=False)
    del run
    gc.collect()
    held = pool.nbytes("cuda:0")
    assert held > MB
    assert torch.cuda.memory_allocated() <= 1.1 * held + 64 * MB  # what cuBLAS works with stays too


@pytest.mark.usefixtures("empty_pool")
def test_networks_without_room_wait_in_the_memory_of_the_machine(device: str, tmp_path: Path, tiny_sd: Path) -> None:
    w = chain("pocket", str(tiny_sd))
    expected = [
        point["out"].pixels.cpu()
        for point in w.run(device=device, cache=False, sweep={"seed": [1, 2]}, max_batch=1).points
    ]
    largest = max(need.total for step in w.plan(device=device).steps if (need := w.plan(device=device).memory(step)))
    pool.clear()
    loads = pool.loads
    for seed, picture in zip([1, 2], expected, strict=True):
        made = w.run(device=device, cache=False, memory_budget=int(1.05 * largest), seed=seed)["out"].pixels.cpu()
        assert torch.equal(made, picture)
    assert pool.nbytes("cpu") > 0
    assert pool.loads - loads <= 8  # three networks and a tokenizer of each model, each read once


@pytest.mark.parametrize("switches", [{"attention": "eager"}, {"channels_last": True}, {"compile": True}], ids=str)
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.usefixtures("empty_pool")
def test_switches_draw_the_same(switches: dict[str, Any], device: str) -> None:
    assert difference(drawn(device, **switches), drawn(device)) <= 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.usefixtures("empty_pool")
def test_estimates_of_memory_hold_what_is_allocated(dtype: str, device: str) -> None:
    """At sizes at which what the libraries of CUDA work with, up to 300 MB in float32, is not the most of it."""
    w = chain(side=768)
    w.run(device=device, dtype=dtype, cache=False)  # the models, and what the libraries of CUDA keep
    planned = w.plan(device=device, dtype=dtype)
    need = max((found.activations, step.name) for step in planned.steps if (found := planned.memory(step)))
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    w.run(device=device, dtype=dtype, cache=False)
    peak = torch.cuda.max_memory_allocated() - before
    print(f"{dtype}: estimated {need[0] / MB:.0f} MB in {need[1]}, allocated {peak / MB:.0f} MB")
    assert 0.7 <= need[0] / peak <= 2.0


def test_memory_that_others_hold_is_not_counted_on(device: str) -> None:
    whole = torch.cuda.get_device_properties(0).total_memory
    assert device_memory("cuda:0") == whole
    found = free_memory("cuda:0")
    assert found is not None
    assert 0 < found <= whole
    held = torch.empty(256 * MB, dtype=torch.uint8, device=device)  # by this process, which can let it go
    again = free_memory("cuda:0")
    assert again is not None
    assert abs(again - found) < 128 * MB
    del held


def test_when_memory_runs_out_the_command_line_says_what_would_help(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = chain(side=1024)
    w.save(tmp_path / "large.json")
    pool.clear()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(100 * MB / torch.cuda.get_device_properties(0).total_memory)
    try:
        status = main(["run", str(tmp_path / "large.json"), "--device", device, "--out", str(tmp_path / "out")])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    err = capsys.readouterr().err
    assert status == 4
    assert "OutOfMemoryError: " in err
    assert "memory ran out: it would need " in err
    assert "Traceback" not in err


def graphflow(*words: str | Path, check: str = "") -> subprocess.CompletedProcess[str]:
    program = f"import sys\nfrom graphflow.cli import main\nstatus = main(sys.argv[1:])\n{check}\nsys.exit(status)"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("device")
def test_the_command_line_finds_the_device_and_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = chain()
    w.add("save", SaveImage(name="picture"), image=w.add("again", Text2Image(steps=2, seed=9), prompt=PROMPT))
    w.save(tmp_path / "flow.json")
    words = "run", tmp_path / "flow.json", "--out", tmp_path / "out"
    monkeypatch.setenv("GRAPHFLOW_CACHE", str(tmp_path / "store"))
    monkeypatch.delenv("GRAPHFLOW_NO_CACHE")
    first = graphflow(*words)
    assert (first.returncode, "Traceback" in first.stderr) == (0, False), first.stderr
    (manifest,) = (tmp_path / "out" / "manifests").glob("*.json")
    environment = json.loads(manifest.read_text())["environment"]
    assert (environment["device"], environment["dtype"]) == ("cuda", "float16")
    again = graphflow(*words, check="assert 'torch' not in sys.modules")
    assert (again.returncode, again.stdout) == (0, first.stdout), again.stderr
    replayed = graphflow("replay", manifest, "--out", tmp_path / "replay")
    assert replayed.returncode == 0, replayed.stderr
    assert "bit-exact" in replayed.stdout + replayed.stderr
