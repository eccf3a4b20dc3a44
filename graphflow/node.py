"""Node: fields are parameters, arguments of ``run`` (or ``expand``) are ports, the return annotation is the output.

A node class is a frozen pydantic model, so an instance is hashable, prints itself and rejects a misspelt parameter::

    class Brighten(Node, version=1):
        \"\"\"Add light to an image.\"\"\"

        amount: float = Field(0.1, ge=-1, le=1, description="added to every channel")

        def run(self, *, image: Image) -> Image:
            return Image((image.pixels + self.amount).clamp(0, 1))

A *fine* node has ``run``; a *coarse* node has ``expand`` and is replaced in the plan by the fine nodes it adds. The
other methods are hooks that tell the engine, before any weight is read, what it cannot see from the signature.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, ConfigDict

from graphflow.errors import NodeDefinitionError, Problem, nearest
from graphflow.machine.compute import Compute
from graphflow.machine.memory import Memory
from graphflow.signature import Port, Signature, marked, read_signature
from graphflow.types import MODEL_REF, PortType

__all__ = ["Context", "Node", "Port", "Ref"]

JsonValue = Any


class Ref(NamedTuple):
    """An output of a step; what ``Expansion.add`` returns and takes."""

    step: int
    output: str


class Context:
    """The engine as a running node sees it. The base class works alone, so that a node can be tried in a test."""

    compute: Compute = Compute()
    output_folder: Path = Path()
    memory: Memory | None = None
    """The estimate that the node's own `Node.memory` gave before the run."""
    provenance: Mapping[str, Any] | None = None
    """The record of what is being run (`graphflow.record`), for what a node saves; None where it is not wanted."""

    @property
    def device(self) -> str:
        """Device to compute on: "cpu", "cuda:0" and so on."""
        return self.compute.device

    @property
    def dtype(self) -> str:
        """Numbers to compute with: "float32", "float16" or "bfloat16"."""
        return self.compute.dtype

    def step(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps are finished; raises Cancelled when the run was asked to stop."""

    def saved(self, path: Path) -> None:
        """Report that a file was written."""

    def warn(self, message: str) -> None:
        """Report something legal but surprising to the user."""


class Node(BaseModel):
    """Base class of every node type.

    The class line carries ``version`` (required; raise it when results change), and where needed ``id`` (the stable
    name in files, by default the class name), ``effect=True`` (does something besides returning a value: always wanted,
    never merged or cached), ``converts=True`` (the engine may put it on an edge), ``loads=True`` (the engine may build
    it from a path given for a workflow input of its output kind), ``saves=True`` (the command line may add it for an
    output of the kind of its one required port; its parameter ``name`` is the file, and it does nothing else than write
    files), ``cached=False`` (the result is made sooner than read from the disk, so it is not kept) and
    ``abstract=True`` (a base class, not a node type).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,  # a validator is built when its node type is first used: importing a pack must stay quick
    )

    type_id: ClassVar[str] = "Node"
    version: ClassVar[int] = 0
    effect: ClassVar[bool] = False
    converts: ClassVar[bool] = False
    loads: ClassVar[bool] = False
    saves: ClassVar[bool] = False
    cached: ClassVar[bool] = True
    abstract: ClassVar[bool] = True
    coarse: ClassVar[bool] = False
    fetches: ClassVar[bool] = False
    """True if the class has a `fetch` of its own; only then may a URL stand for its files."""
    checks_values: ClassVar[bool] = False
    """True if the class has a `check_values` of its own; only then are values gathered for it."""
    _signature: ClassVar[Signature | None] = None
    _code: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()  # pydantic gives the class line to both hooks; the other one reads it

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        version: int | None = None,
        id: str | None = None,
        effect: bool = False,
        converts: bool = False,
        loads: bool = False,
        saves: bool = False,
        cached: bool = True,
        abstract: bool = False,
        **unknown: Any,
    ) -> None:
        super().__pydantic_init_subclass__()
        name = f"node class {cls.__name__} in {cls.__module__}"
        for word in unknown:
            words = inspect.getfullargspec(cls.__pydantic_init_subclass__).kwonlyargs
            raise NodeDefinitionError(f"{name}: unknown word '{word}' in the class line; {nearest(word, words)}")
        cls.abstract = abstract
        cls._signature = None
        if abstract:
            return
        if version is None:
            raise NodeDefinitionError(f"{name}: no version; write class {cls.__name__}(Node, version=1)")
        cls.type_id = id or cls.__name__
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*", cls.type_id):
            raise NodeDefinitionError(f"{name}: id {cls.type_id!r} is not a dotted name of letters, digits and _")
        cls.version, cls.effect, cls.converts, cls.loads, cls.saves = version, effect, converts, loads, saves
        cls.cached = cached and not effect
        runs = cls.run is not Node.run
        cls.coarse = cls.expand is not Node.expand
        cls.fetches = cls.fetch is not Node.fetch
        cls.checks_values = cls.check_values is not Node.check_values
        if runs == cls.coarse:
            raise NodeDefinitionError(
                f"{name}: has {'both run and' if runs else 'neither run nor'} expand; one is needed"
            )
        method = cls.expand if cls.coarse else cls.run
        body = inspect.signature(method)
        if body.return_annotation is inspect.Signature.empty:
            raise NodeDefinitionError(
                f"{name}: {method.__name__} does not say what it returns; annotate it, -> None where it gives no value"
            )
        ports = [p.name for p in body.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
        for clash in sorted({*ports} & {*cls.model_fields, "type", "uses"} | {*cls.model_fields} & {"type", "uses"}):
            raise NodeDefinitionError(f"{name}: '{clash}' is taken; rename the port or the parameter")

    # What the class does -------------------------------------------------------------------------------------------

    def run(self, *args: Any, **inputs: Any) -> Any:
        """Compute the outputs; ports are keyword-only arguments, ``context: Context`` is optional and not a port."""
        raise NotImplementedError(f"{self.type_id} does not run: it expands into other nodes")

    def expand(self, *args: Any, **inputs: Any) -> Any:
        """Add the nodes that this one stands for to the Expansion given first; return a Ref or a NamedTuple of them."""
        raise NotImplementedError(f"{self.type_id} does not expand: it runs")

    @classmethod
    def run_batch(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Compute what `run` would give for each of the nodes at once; they have one `batch_key`.

        Each has its own arguments, the context too. The memory in the contexts is that of the whole batch.
        """
        return [node.run(**given) for node, given in zip(nodes, arguments, strict=True)]

    # Hooks, all answered without weights -----------------------------------------------------------------------------

    def input_types(self) -> Mapping[str, PortType]:
        """Types of the ports of this instance; override to narrow them, e.g. to the latent space of the model."""
        return (self._signature or self.signature()).input_types

    def output_types(self, inputs: Mapping[str, PortType]) -> Mapping[str, PortType]:
        """Types of the outputs, given those of the connected inputs."""
        return (self._signature or self.signature()).outputs

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Faults and surprises that can be known before the run."""
        return ()

    def check_values(self, values: Mapping[str, str | int | float | bool]) -> Iterable[Problem]:
        """Faults of the values that stand on plain ports before the run; a port that an edge feeds is not among them.

        The ``field`` of a problem is the name of the port.
        """
        return ()

    def fetch(self, *, offline: bool) -> Iterable[Problem]:
        """Get what is not on this machine yet and is read in the run; yield what is wrong or surprising about it.

        Asked before the run, while nothing else is known to be wrong; not while a workflow is only checked. What
        ``output_types`` and ``identity`` tell may depend on it. With ``offline`` nothing may be asked of the network,
        and what is not on this machine is a problem whose code begins with ``missing.``. Equal nodes are asked once.

        A node with this method may be given an https URL where it reads a file (`graphflow.InputFile`).
        """
        return ()

    def identity(self) -> JsonValue:
        """Everything besides parameters and inputs that determines the result: a model's digest, a file's hash."""
        return None

    def models(self) -> tuple[str, ...]:
        """References of the models that must be loaded to run."""
        return ()

    def weight_files(self) -> Iterable[Path]:
        """Return files of weights that a run reads, or the nodes that it expands into.

        The system is asked to read them while earlier steps compute, and on the CPU the largest decides what the dtype
        ``auto`` is.
        """
        return ()

    def claims(self) -> tuple[str, ...]:
        """Return the files that are written, relative to the output folder."""
        return ()

    def progress_steps(self, inputs: Mapping[str, PortType]) -> int | None:
        """Return the number of steps that the progress bar counts (denoise steps), None for a node that is one step."""
        return None

    def memory(self, inputs: Mapping[str, PortType], compute: Compute) -> Memory | None:
        """Estimate what a run needs on its device at its peak, None where it is unknown."""
        return None

    def batch_key(self, inputs: Mapping[str, PortType]) -> Hashable | None:
        """Common property of the steps that `run_batch` may compute as one batch; None: it is run alone."""
        return None

    def lighter(self) -> Iterable[Self]:
        """Return the node with other parameters that need less memory, to be offered where it does not fit."""
        return ()

    @classmethod
    def convert(cls, source: PortType, target: PortType) -> Self | None:
        """For ``converts=True``: the instance that turns ``source`` into ``target``, None if this class cannot."""
        return None

    # What the engine reads off the class ---------------------------------------------------------------------------

    @classmethod
    def signature(cls) -> Signature:
        """Ports and outputs, read once from the annotations of ``run`` or ``expand``."""
        signature = cls._signature
        if signature is None:
            method = cls.expand if cls.coarse else cls.run
            signature = cls._signature = read_signature(cls, method, coarse=cls.coarse)
        return signature

    @classmethod
    def code(cls) -> str | None:
        """SHA-256 (hex) of the file that holds the class, so that a changed node is not taken for the old one.

        None for GraphFlow's own nodes, whose version says when results change, and where there is no file.
        """
        if cls.__module__.startswith("graphflow."):
            return None
        if "_code" not in cls.__dict__:
            try:
                cls._code = hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
            except (OSError, TypeError):
                cls._code = None
        return cls._code

    def named_models(self) -> tuple[str, ...]:
        """References of models that its parameters name, for itself or for nodes that it expands into."""
        named = [getattr(self, name) for name in marked(type(self), MODEL_REF)]
        return tuple(dict.fromkeys([*self.models(), *(name for name in named if name is not None)]))

    @classmethod
    def summary(cls) -> str:
        """First sentence of the docstring."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
