"""The inputs of several steps as those of one, so that a denoiser computes them at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate
from typing import Any

from graphflow import Context, Latent

__all__ = ["TogetherContext", "alike", "taken_apart", "together"]


class TogetherContext(Context):
    """The context of several steps that are computed at once: what it is told, it tells to theirs.

    ``seeds`` are those of all their pictures.
    """

    def __init__(self, contexts: Sequence[Context], seeds: tuple[int, ...]) -> None:
        self.seeds = seeds
        self.contexts, self.compute, self.memory = contexts, contexts[0].compute, contexts[0].memory

    def step(self, done: int, total: int) -> None:
        """Tell each; raises Cancelled when one of them was asked to stop."""
        for context in self.contexts:
            context.step(done, total)

    def warn(self, message: str) -> None:
        """Tell each."""
        for context in self.contexts:
            context.warn(message)


def alike(arguments: Sequence[Mapping[str, Any]], pictures: str = "latent") -> Iterable[list[int]]:
    """Which of several arguments of a step can be put together, by what their tensors really are.

    ``pictures`` is the port that tells how many pictures there are.

    Types tell neither how long the prompts are nor in what precision a value is. Arguments that do not fit one another
    stay alone, so that it is the run of their own step that tells what is wrong.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, given in enumerate(arguments):
        groups.setdefault(_kind(given) if _fits(given, pictures) else index, []).append(index)
    return groups.values()


def together(arguments: Sequence[Mapping[str, Any]], pictures: str = "latent") -> dict[str, Any]:
    """The values on all ports put together along the batch, with a row for each picture; none but `alike` ones."""
    import torch

    counts = [len(given[pictures]) for given in arguments]

    def rows(parts: Iterable[Any]) -> Any:
        return torch.cat([part.expand(count, *part.shape[1:]) for part, count in zip(parts, counts, strict=True)])

    def joined(values: Sequence[Any]) -> Any:
        names = [name for name, _ in _tensors(values[0])]
        return replace(values[0], **{name: rows(getattr(value, name) for value in values) for name in names})

    return {port: joined([given[port] for given in arguments]) for port, _ in _values(arguments[0])}


def taken_apart(latent: Latent, counts: Sequence[int]) -> list[Latent]:
    """The latents of each step, each with memory of its own, so that one may go while another is kept."""
    ends = accumulate(counts)
    return [
        replace(latent, data=latent.data[end - count : end].clone()) for end, count in zip(ends, counts, strict=True)
    ]


def _kind(given: Mapping[str, Any]) -> Hashable:
    def described(value: Any) -> Hashable:
        # whose autoencoder reads latents makes no difference to those that are made of them
        parts = [getattr(value, each.name) for each in fields(value) if each.name != "model"]
        return tuple((part.shape[1:], part.dtype, part.device) if hasattr(part, "shape") else part for part in parts)

    return frozenset((port, described(value)) for port, value in _values(given))


def _fits(given: Mapping[str, Any], pictures: str) -> bool:
    """Whether everything is one for all of the pictures, or one for each."""
    count = len(given[pictures])
    return all(len(part) in (1, count) for _, value in _values(given) for _, part in _tensors(value))


def _values(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((port, value) for port, value in given.items() if port != "context" and value is not None)


def _tensors(value: Any) -> Iterator[tuple[str, Any]]:
    parts = ((each.name, getattr(value, each.name)) for each in fields(value))
    return ((name, part) for name, part in parts if hasattr(part, "shape"))
