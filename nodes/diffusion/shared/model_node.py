"""The base class of nodes with a model."""

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

    A missing model must not hide the other faults of a workflow, so the hooks for types do not fail without it:
    `model_info` is None, their results have less detail, and `check` reports the problem.
    """

    tasks: ClassVar[Tasks] = ()
    """The tasks of which the model must be able to do one; with none, any model with a text encoder and a VAE."""

    model: ModelRef = Field(
        "pocket",
        description='"pocket", a hub id with optional @revision, a folder or a .safetensors file; + lora:… + vae:…',
    )

    def model_info(self) -> ModelInfo | None:
        """Return the description of the model, None if it cannot be used."""
        found = find_model(self.model, self.tasks)
        return found if isinstance(found, ModelInfo) else None

    def require_model_info(self) -> ModelInfo:
        """Return the description of the model. Raises WorkflowError if it cannot be used."""
        return require_model(self.model, self.tasks)

    def check(self, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Yield problems with the model, with parameters that its family does not use, and those of `check_with`."""
        yield from find_problems(self.model, self.tasks)
        info = self.model_info()
        if info is not None:
            yield from self._ignored(info, inputs)
            yield from self.check_with(info, inputs)

    def _ignored(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterator[Problem]:
        """Yield errors for parameters and ports that are given although the model does not use them."""
        fields = type(self).model_fields
        for name in sorted(info.family.ignored):
            given = name in inputs or (name in fields and getattr(self, name) != fields[name].default)
            if given:
                value = f" {getattr(self, name)!r}" if name in fields else ""
                message = f"found {name}{value}, which models of the family {info.family.name} do not look at"
                yield Problem("value.ignored", message, name, "leave it out, or choose another model")

    def check_with(self, info: ModelInfo, inputs: Mapping[str, PortType]) -> Iterable[Problem]:
        """Return the problems with the other parameters, for a model that can be used."""
        return ()

    def identity(self) -> str:
        """Return the digest of the model's files."""
        return model_digest(self.model, self.tasks)

    def models(self) -> tuple[str, ...]:
        """Return the references of the models that the node uses."""
        return (self.model,)

    def networks(self, info: ModelInfo) -> Iterable[str]:
        """Return the names of the components that a run loads; by default all of the model."""
        return info.components

    def weight_files(self) -> Iterable[Path]:
        """Return the files of weights of `networks`; none for a model that cannot be used."""
        info = self.model_info()
        return [file for name in self.networks(info) for file in info.components[name].weight_files] if info else []

    def setting(self, info: ModelInfo, name: str, task: Task | None = None) -> Any:
        """Return the parameter ``name``, or the model's default for ``task`` where it is not given.

        Without ``task`` it is the first of the node's tasks that the model can do.
        """
        value = getattr(self, name)
        own: Task = next(each for each in self.tasks if each in info.tasks) if task is None else task
        return getattr(info.defaults[own], name) if value is None else value

    def latent_type(self, source: PortType | None = None) -> PortType:
        """Return the type of clean latents of this model, with the size and batch of ``source``."""
        info = self.model_info()
        size = source or PortType(Latent)
        space = info.space if info else None
        return PortType(Latent, space, self.model, size.width, size.height, size.batch, noise=0.0)

    def adapter(self, context: Context) -> Any:
        """Return the adapter that runs the model. Imports torch. Raises WorkflowError if the model cannot be used."""
        from graphflow.nodes.diffusion.loading.components import adapter

        return adapter(self.require_model_info(), context.compute, context.memory)
