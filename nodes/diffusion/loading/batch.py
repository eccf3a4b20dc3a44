"""Inputs of several steps stacked into one batch, which a denoiser computes at once, and its result split again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import accumulate
from typing import Any

from graphflow import Context, Latent

__all__ = ["BatchContext", "group_stackable", "stack", "unstack"]


class BatchContext(Context):
    """The context of several steps that are computed as one batch: it forwards reports to the context of each.

    ``seeds`` are those of all their pictures, in order.
    """

    def __init__(self, contexts: Sequence[Context], seeds: tuple[int, ...]) -> None:
        self.seeds = seeds
        self.contexts, self.compute, self.memory = contexts, contexts[0].compute, contexts[0].memory

    def step(self, done: int, total: int) -> None:
        """Report progress to each step. Raises Cancelled when one of them was asked to stop."""
        for context in self.contexts:
            context.step(done, total)

    def warn(self, message: str) -> None:
        """Report a warning to each step."""
        for context in self.contexts:
            context.warn(message)


def group_stackable(arguments: Sequence[Mapping[str, Any]], batch_port: str) -> Iterable[list[int]]:
    """Group the arguments of several steps into batches, by the shapes, dtypes and devices of their tensors.

    ``batch_port`` is the port whose value has one item per picture. Return the indices of each group.

    Static types contain neither the length of prompts nor dtypes. Arguments that are inconsistent are a group of their
    own, so that the run of their own step reports the error.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, given in enumerate(arguments):
        groups.setdefault(_kind(given) if _fits(given, batch_port) else index, []).append(index)
    return groups.values()


def stack(arguments: Sequence[Mapping[str, Any]], batch_port: str) -> dict[str, Any]:
    """Stack the values on all ports along the batch, one row per picture, of one group of `group_stackable`."""
    import torch

    counts = [len(given[batch_port]) for given in arguments]

    def rows(parts: Iterable[Any]) -> Any:
        return torch.cat([part.expand(count, *part.shape[1:]) for part, count in zip(parts, counts, strict=True)])

    def stacked(values: Sequence[Any]) -> Any:
        names = [name for name, _ in _tensors(values[0])]
        return replace(values[0], **{name: rows(getattr(value, name) for value in values) for name in names})

    return {port: stacked([given[port] for given in arguments]) for port, _ in _values(arguments[0])}


def unstack(latent: Latent, counts: Sequence[int]) -> list[Latent]:
    """Split latents into those of each step, each with memory of its own, so that they can be freed independently."""
    ends = accumulate(counts)
    return [
        replace(latent, data=latent.data[end - count : end].clone()) for end, count in zip(ends, counts, strict=True)
    ]


def _kind(given: Mapping[str, Any]) -> Hashable:
    def described(value: Any) -> Hashable:
        # the model that made latents does not matter to the denoiser
        parts = [getattr(value, each.name) for each in fields(value) if each.name != "model"]
        return tuple((part.shape[1:], part.dtype, part.device) if hasattr(part, "shape") else part for part in parts)

    return frozenset((port, described(value)) for port, value in _values(given))


def _fits(given: Mapping[str, Any], batch_port: str) -> bool:
    """Return whether each tensor has one row for all pictures, or one row for each."""
    count = len(given[batch_port])
    return all(len(part) in (1, count) for _, value in _values(given) for _, part in _tensors(value))


def _values(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((port, value) for port, value in given.items() if port != "context" and value is not None)


def _tensors(value: Any) -> Iterator[tuple[str, Any]]:
    parts = ((each.name, getattr(value, each.name)) for each in fields(value))
    return ((name, part) for name, part in parts if hasattr(part, "shape"))
