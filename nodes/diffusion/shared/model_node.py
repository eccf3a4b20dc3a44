"""What every node with a model has in common. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from graphflow import Context, Field, Latent, ModelRef, Node, PortType, Problem
from graphflow.nodes.diffusion.families import Task, Tasks
from graphflow.nodes.diffusion.models.model_info import (
    ModelInfo,
    find_model,
    find_problems,
    model_digest,
    require_model,
)

__all__ = ["ModelNode"]


class ModelNode(Node, abstract=True):
    """Base class of nodes with the parameter ``model``.

    A model that is not there must not hide the other faults of a workflow, so the hooks for types answer with less
    rather than fail: `known` is None then, and `check` tells what is wrong.
    """

    tasks: ClassVar[Tasks] = ()
    """The model must be able to do one of these; none: any that has a text encoder and a VAE will do."""

    model: ModelRef = Field(
        "pocket",
        description='"pocket", a hub id with optional @revision, a folder or a .safetensors file; + lora:… + vae:…',
    )

    @property
    def known(self) -> ModelInfo | None:
        """What is known of the model, None if it cannot be used."""
        found = find_model(self.model, self.tasks)
        return found if isinstance(found, ModelInfo) else None

    @property
    def required(self) -> ModelInfo:
        """What is known of the model. Raises WorkflowError if it cannot be used."""
        return require_model(self.model, self.tasks)

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """What is wrong with the model, what its family ignores; then what `check_with` finds."""
        yield from find_problems(self.model, self.tasks)
        if self.known:
            yield from self._ignored(self.known, inputs)
            yield from self.check_with(self.known, inputs)

    def _ignored(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Errors for parameters and ports that were given, and that the model would not look at."""
        fields = type(self).model_fields
        for name in sorted(info.family.ignored):
            given = name in inputs or (name in fields and getattr(self, name) != fields[name].default)
            if given:
                value = f" {getattr(self, name)!r}" if name in fields else ""
                message = f"found {name}{value}, which models of the family {info.family.name} do not look at"
                yield Problem("value.ignored", message, name, "leave it out, or choose another model")

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Faults of the other parameters, given the model."""
        return ()

    def identity(self) -> str:
        """The digest of the model's files."""
        return model_digest(self.model, self.tasks)

    def models(self) -> tuple[str, ...]:
        """The model."""
        return (self.model,)

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """The components that a run loads; by default all of the model."""
        return info.components

    def weight_files(self) -> Iterable[Path]:
        """The files of `networks`; none of a model that cannot be used."""
        info = self.known
        return [file for name in self.networks(info) for file in info.components[name].weight_files] if info else []

    def setting(self, info: ModelInfo, name: str, task: Task | None = None) -> Any:
        """Return the parameter ``name``, or the model's own where it is not given.

        It is the one for ``task``, by default the first of the node's tasks that the model can do.
        """
        value = getattr(self, name)
        own: Task = next(each for each in self.tasks if each in info.tasks) if task is None else task
        return getattr(info.defaults[own], name) if value is None else value

    def latent_type(self, source: PortType | None = None) -> PortType:
        """Clean latents of this model, with the size and batch of ``source``."""
        info = self.known
        size = source or PortType(Latent)
        space = info.space if info else None
        return PortType(Latent, space, self.model, size.width, size.height, size.batch, noise=0.0)

    def adapter(self, context: Context) -> Any:
        """What runs the model: see `graphflow.nodes.diffusion.adapters`. Imports torch; raises WorkflowError."""
        from graphflow.nodes.diffusion.loading.components import adapter

        return adapter(self.required, context.compute, context.memory)
