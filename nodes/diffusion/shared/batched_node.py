"""What nodes have in common whose steps can be computed as one batch. Imports no torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Self

from graphflow import Context, Latent, PortType
from graphflow.nodes.diffusion.loading.together import TogetherContext, alike, taken_apart, together
from graphflow.nodes.diffusion.sampling.noise import seeds_from
from graphflow.nodes.diffusion.shared.model_node import ModelNode

__all__ = ["BatchedNode"]


class BatchedNode(ModelNode, abstract=True):
    """Base class of nodes that denoise, with a parameter ``seed``: item i of a batch draws its noise from ``seed + i``.

    Steps of one class that differ in seed, prompts and pictures only can be computed at once, by one `run` on all of
    their pictures. A class whose ``run`` asks `seeds` for the seed of each says so with `joins`.
    """

    joins: ClassVar[bool] = False
    """Whether `run` treats each picture by itself. Not inherited: a class with a ``run`` of its own may do more."""
    pictures: ClassVar[str] = "latent"
    """The port whose items are the pictures of the batch."""

    def seeds(self, context: Context, count: int) -> tuple[int, ...]:
        """The seed of each of ``count`` pictures; where several steps are computed at once, that of its own step."""
        return context.seeds if isinstance(context, TogetherContext) else seeds_from(_seed(self), count)

    def batch_key(self, inputs: Mapping[str, PortType]) -> Hashable | None:
        """All parameters but the seed, what is known of the pictures, and whether a negative prompt comes.

        None where their size or number is not known before the run, and for a derived class that does not say `joins`
        itself.
        """
        source = inputs.get(self.pictures)
        if source is None or not vars(type(self)).get("joins", False):
            return None
        size = (source.width, source.height, source.batch)
        if None in size:
            return None
        same = self.model_copy(update={"seed": 0})
        return (same, source.space, *size, source.noise, source.steps, "negative" in inputs)

    @classmethod
    def run_batch(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> list[Latent]:
        """All pictures as one batch; those whose encoded prompts are of another length go by themselves."""
        made: dict[int, Latent] = {}
        for group in alike(arguments, cls.pictures):
            latents = cls._run_alike([nodes[index] for index in group], [arguments[index] for index in group])
            made.update(zip(group, latents, strict=True))
        return [made[index] for index in range(len(nodes))]

    @classmethod
    def _run_alike(cls, nodes: Sequence[Self], arguments: Sequence[Mapping[str, Any]]) -> list[Latent]:
        if len(nodes) == 1:
            return [nodes[0].run(**arguments[0])]
        counts = [len(given[cls.pictures]) for given in arguments]
        seeds = [seed for node, count in zip(nodes, counts, strict=True) for seed in seeds_from(_seed(node), count)]
        context = TogetherContext([given["context"] for given in arguments], tuple(seeds))
        return taken_apart(nodes[0].run(**together(arguments, cls.pictures), context=context), counts)


def _seed(node: Any) -> int:
    """What every derived class has, each where it stands among its own parameters."""
    seed: int = node.seed
    return seed
