"""The base class of nodes whose steps can be computed as one batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

from graphflow import Context, Latent, PortType
from graphflow.nodes.diffusion.loading.batch import BatchContext, group_stackable, stack, unstack
from graphflow.nodes.diffusion.sampling.noise import seeds_from
from graphflow.nodes.diffusion.shared.model_node import ModelNode

__all__ = ["BatchedNode"]


class BatchedNode(ModelNode, abstract=True):
    """Base class of nodes that denoise, with a parameter ``seed``: item i of a batch draws its noise from ``seed + i``.

    Steps of one class that differ in seed, prompts and pictures only can be computed at once, by one `run` on all of
    their pictures. A class declares with `batchable` that its ``run`` takes the seed of each picture from `seeds`.
    """

    batchable: ClassVar[bool] = False
    """True if `run` treats each picture by itself. Not inherited, since a derived class may have another ``run``."""
    batch_port: ClassVar[str] = "latent"
    """The port whose items are the pictures of the batch."""

    def seeds(self, context: Context, count: int) -> tuple[int, ...]:
        """Return the seed of each of ``count`` pictures; in a batch of several steps, that of its own step."""
        return context.seeds if isinstance(context, BatchContext) else seeds_from(_seed(self), count)

    def batch_key(self, inputs: Mapping[str, PortType]) -> Hashable | None:
        """Return a key of all parameters but the seed, of the type of the pictures, and of an attached negative prompt.

        None where their size or number is not known before the run, and for a class that does not declare `batchable`
        itself.
        """
        source = inputs.get(self.batch_port)
        if source is None or not vars(type(self)).get("batchable", False):
            return None
        size = (source.width, source.height, source.batch)
        if None in size:
            return None
        same = self.model_copy(update={"seed": 0})
        return (same, source.space, *size, source.noise, source.steps, "negative" in inputs)

    @classmethod
    def run_batch(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> list[Latent]:
        """Run all steps as one batch; those whose encoded prompts have another length are a batch of their own."""
        made: dict[int, Latent] = {}
        for group in group_stackable(arguments, cls.batch_port):
            latents = cls._run_stacked([nodes[index] for index in group], [arguments[index] for index in group])
            made.update(zip(group, latents, strict=True))
        return [made[index] for index in range(len(nodes))]

    @classmethod
    def _run_stacked(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> list[Latent]:
        if len(nodes) == 1:
            return [nodes[0].run(**arguments[0])]
        counts = [len(given[cls.batch_port]) for given in arguments]
        seeds = [seed for node, count in zip(nodes, counts, strict=True) for seed in seeds_from(_seed(node), count)]
        context = BatchContext([given["context"] for given in arguments], tuple(seeds))
        return unstack(nodes[0].run(**stack(arguments, cls.batch_port), context=context), counts)


def _seed(node: Any) -> int:
    seed: int = node.seed  # a field of every derived class, at its own place among the parameters
    return seed
