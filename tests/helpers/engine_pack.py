"""Small nodes for the tests of the engine: numbers instead of pictures, so that every rule is tried in microseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Self

from graphflow import (
    Context,
    Expansion,
    Field,
    Image,
    InputFile,
    Latent,
    ModelRef,
    Node,
    PortType,
    Problem,
    Registry,
    Seed,
    Text,
)

RUNS: list[str] = []
"""Names of the nodes that really ran, newest last; tests clear it."""


class Number(Node, version=1):
    """Give a number."""

    value: int = Field(0, description="the number")

    def run(self) -> int:
        RUNS.append("Number")
        return self.value


class Add(Node, version=1):
    """Add two numbers.

    The second one has a default.
    """

    by: int = Field(0, ge=0, le=1000, description="added as well")

    def run(self, *, left: int, right: int = 0) -> int:
        RUNS.append("Add")
        return left + right + self.by


class Scale(Node, version=1):
    """Multiply by a factor."""

    factor: float = Field(description="the factor")
    mode: Literal["exact", "rounded"] = Field("exact", description="what to do with fractions")

    def run(self, *, value: float) -> float:
        RUNS.append("Scale")
        result = value * self.factor
        return float(round(result)) if self.mode == "rounded" else result


class AddTwice(Node, version=1):
    """Add a number two times: a coarse node."""

    by: int = 1

    def expand(self, g: Expansion, *, value: int) -> int:
        once = g.add(Add(by=self.by), left=value)
        result: int = g.add(Add(by=self.by), left=once)
        return result


class Halves(NamedTuple):
    low: int
    high: int


class Split(Node, version=1):
    """Split a number into a low and a high half."""

    def run(self, *, value: int) -> Halves:
        RUNS.append("Split")
        return Halves(value // 2, value - value // 2)


class Join(Node, version=1):
    """Put words together."""

    def run(self, *, left: Text, right: Text = "!") -> str:
        RUNS.append("Join")
        return left + right


class Explode(Node, version=1):
    """Raise."""

    def run(self, *, value: int) -> int:
        raise ValueError(f"cannot digest {value}")


class Wait(Node, version=1):
    """Count to ``steps``, reporting each one."""

    steps: int = 5

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int:
        return self.steps

    def run(self, *, value: int, context: Context) -> int:
        for done in range(self.steps):
            context.step(done + 1, self.steps)
        return value


class Write(Node, version=1, effect=True):
    """Write a number to a file."""

    name: str = Field(description="file name")

    def claims(self) -> tuple[str, ...]:
        return (f"{self.name}.txt",)

    def run(self, *, value: int, context: Context) -> None:
        RUNS.append(f"Write {self.name}")
        path = context.output_folder / f"{self.name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(value))
        context.saved(path)


class Block:
    """A value that holds memory and reports how much."""

    alive = 0
    peak = 0

    def __init__(self, nbytes: int) -> None:
        self.data = bytearray(nbytes)
        Block.alive += 1
        Block.peak = max(Block.peak, Block.alive)

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def __del__(self) -> None:
        Block.alive -= 1


class MakeBlock(Node, version=1):
    """Make a block of memory."""

    nbytes: int = 1

    def run(self) -> Block:
        return Block(self.nbytes)


class PassBlock(Node, version=1):
    """Make a new block as large as the given one."""

    tag: int = 0

    def run(self, *, block: Block) -> Block:
        return Block(block.nbytes)


SPACES = {"sd-model": "sd", "xl-model": "sdxl"}


def space_of(model: str) -> str:
    """The latent space of a model; any other model has one of its own."""
    return SPACES.get(model, model)


class Draw(Node, version=1):
    """Give a latent in the space of a model, without any tensor."""

    model: ModelRef = "sd-model"
    seed: Seed = 0

    def models(self) -> tuple[str, ...]:
        return (self.model,)

    def output_types(self, inputs: Mapping[str, PortType]) -> Mapping[str, PortType]:
        return {"latent": PortType(Latent, space_of(self.model), self.model, 64, 64, 1)}

    def run(self) -> Latent:
        return Latent(None, space_of(self.model), self.model)  # type: ignore[arg-type]


class Redraw(Node, version=1):
    """Take a latent of its own space and give one."""

    model: ModelRef = "sd-model"

    def input_types(self) -> Mapping[str, PortType]:
        return {"image": PortType(Latent, space_of(self.model), self.model)}

    def output_types(self, inputs: Mapping[str, PortType]) -> Mapping[str, PortType]:
        return {"latent": PortType(Latent, space_of(self.model), self.model)}

    def run(self, *, image: Latent) -> Latent:
        assert image.space == space_of(self.model)
        return image


class Decode(Node, version=1, converts=True):
    """Latent to image."""

    model: ModelRef

    @classmethod
    def convert(cls, source: PortType, target: PortType) -> Self | None:
        return cls(model=source.model) if source.model else None

    def run(self, *, latent: Latent) -> Image:
        RUNS.append(f"Decode {self.model}")
        return Image(None)  # type: ignore[arg-type]


class Encode(Node, version=1, converts=True):
    """Image to latent."""

    model: ModelRef

    @classmethod
    def convert(cls, source: PortType, target: PortType) -> Self | None:
        return cls(model=target.model) if target.model else None

    def output_types(self, inputs: Mapping[str, PortType]) -> Mapping[str, PortType]:
        return {"latent": PortType(Latent, space_of(self.model), self.model)}

    def run(self, *, image: Image) -> Latent:
        RUNS.append(f"Encode {self.model}")
        return Latent(None, space_of(self.model), self.model)  # type: ignore[arg-type]


class ReadImage(Node, version=1, loads=True):
    """Stand for an image file."""

    path: InputFile

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        if not Path(self.path).is_file():
            yield Problem("missing.file", f"found no file {self.path}", "path")

    def run(self) -> Image:
        return Image(None)  # type: ignore[arg-type]


class Odd(Node, version=1):
    """Accept only odd sums, and say so before the run."""

    sum: int = 1

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        if self.sum % 2 == 0:
            yield Problem("value.even", f"found {self.sum}, expected an odd number", "sum", "add one")
        if self.sum > 99:
            yield Problem("value.large", f"{self.sum} is large", "sum", severity="warning")

    def run(self) -> int:
        return self.sum


REGISTRY = Registry(
    [
        Number,
        Add,
        Scale,
        AddTwice,
        Split,
        Join,
        Explode,
        Wait,
        Write,
        MakeBlock,
        PassBlock,
        Draw,
        Redraw,
        Decode,
        Encode,
        ReadImage,
        Odd,
    ]
)
