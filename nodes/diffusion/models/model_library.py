"""Descriptions of models, and their downloads: the `graphflow.model_library.ModelLibrary` of this pack.

huggingface_hub downloads into its own cache, where `location` looks; it honours HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE,
HF_TOKEN and HF_ENDPOINT.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from graphflow import Problem, WorkflowError
from graphflow.model_library import Download, ModelDescription, RemoteFile
from graphflow.nodes.diffusion.checkpoints.location import HubReference, hub_cache, hub_reference, locate, model_problem
from graphflow.nodes.diffusion.checkpoints.model_files import UnusableError, read_json
from graphflow.nodes.diffusion.checkpoints.model_parts import part_names
from graphflow.nodes.diffusion.checkpoints.model_reference import ModelReference, parse_reference
from graphflow.nodes.diffusion.checkpoints.pocket_models import POCKET
from graphflow.nodes.diffusion.checkpoints.prior import prior_reference
from graphflow.nodes.diffusion.checkpoints.tokenizer_files import tokenizer_source
from graphflow.nodes.diffusion.families import family_of
from graphflow.nodes.diffusion.models.model_info import ModelInfo, find_model, find_problems
from graphflow.nodes.diffusion.models.network_info import NetworkInfo, find_network
from graphflow.nodes.diffusion.models.repository_files import (
    INDEX,
    component_names,
    network_files,
    only_lora,
    pipeline_files,
)

__all__ = ["library"]

Answer = TypeVar("Answer")


class HubLibrary:
    """Models that ship with GraphFlow, in folders and files, and on the Hugging Face Hub."""

    def describe(self, reference: str) -> ModelDescription:
        """Describe a pipeline or a single network; the problems with one that cannot be used are in the result."""
        found = find_model(reference)
        if isinstance(found, ModelInfo):
            files = {file for component in found.components.values() for file in component.files}
            files |= {lora.path for component in found.components.values() for lora in component.loras}
            return ModelDescription(
                reference=reference,
                family=found.family.name,
                space=found.space,
                width=found.native_width,
                height=found.native_height,
                nbytes=sum(file.stat().st_size for file in files),
            )
        for purpose in ("controlnet", "depth"):
            network = find_network(reference, purpose)
            if isinstance(network, NetworkInfo):
                nbytes = sum(file.stat().st_size for file in network.component.files)
                return ModelDescription(reference=reference, family=network.cls, nbytes=nbytes)
        problems = tuple(problem for problem in find_problems(reference) if problem.severity == "error")
        return ModelDescription(reference=reference, problems=problems or (found,))

    def missing(self, reference: str, variant: str | None) -> Sequence[Download]:
        """List what has to be downloaded for a model and its parts. Raises WorkflowError with all problems."""
        parsed = parse_reference(reference)
        if not isinstance(parsed, ModelReference):
            raise WorkflowError.of(parsed)
        problems: list[Problem] = []
        downloads: list[Download] = []
        for name, noun in part_names(parsed):
            try:
                downloads += _of_part(name, noun, variant)
            except UnusableError as unusable:
                problems.append(unusable.problem)
        if problems:
            raise WorkflowError.of(problems)
        return downloads

    def fetch(self, download: Download, file: RemoteFile) -> None:
        """Download one file into the cache of huggingface_hub. Raises WorkflowError."""
        from huggingface_hub import hf_hub_download

        hub = HubReference(download.repository, download.revision)
        # by the name of the revision, not the commit, so that the cache records the commit of that name
        try:
            _asked(hub, lambda: hf_hub_download(hub.repository, file.name, revision=hub.revision))
        except UnusableError as unusable:
            raise WorkflowError.of([unusable.problem]) from unusable.__cause__


library = HubLibrary()
"""The model library of this pack."""


def _of_part(name: str, noun: str, variant: str | None) -> Iterator[Download]:
    """Yield the downloads of one part of a reference. Raises UnusableError."""
    hub = hub_reference(name)
    if name in POCKET or hub is None or Path(name).expanduser().exists():
        found = locate(name, noun)
        if isinstance(found, Problem):
            raise UnusableError(found)
        yield from _tokenizers(name)
        return
    yield from _of_repository(hub, noun, variant)
    yield from _tokenizers(name)


def _of_repository(hub: HubReference, noun: str, variant: str | None, wanted: Iterable[str] = ()) -> Iterator[Download]:
    """Yield the files of a repository (of the components ``wanted``, if some are named) and of its prior."""
    from huggingface_hub import HfApi

    info = _asked(hub, lambda: HfApi().model_info(hub.repository, revision=hub.revision, files_metadata=True))
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    index = _index(hub, noun, sizes)
    family = family_of(index) if index and not wanted else None
    chosen = _chosen(hub, noun, list(sizes), index, variant, wanted)
    prior = _prior(hub, info.card_data) if family and family.prior else None
    if prior and "README.md" in sizes:
        chosen.append("README.md")  # the prior is named in it
    snapshot = hub_cache() / f"models--{hub.repository.replace('/', '--')}" / "snapshots" / str(info.sha)
    files = [RemoteFile(name, sizes[name]) for name in chosen if not (snapshot / name).exists()]
    if files:
        yield Download(hub.repository, hub.revision, str(info.sha), tuple(files))
    if prior and family:
        yield from _of_repository(prior, noun, variant, family.prior.values())


def _index(hub: HubReference, noun: str, names: Collection[str]) -> dict[str, Any]:
    """Fetch and read ``model_index.json`` of a repository that is a pipeline; return {} for any other."""
    if hub.file or noun != "model" or INDEX not in names:
        return {}
    from huggingface_hub import hf_hub_download

    path = _asked(hub, lambda: hf_hub_download(hub.repository, INDEX, revision=hub.revision))
    return read_json(hub.repository, Path(path))


def _chosen(
    hub: HubReference, noun: str, names: list[str], index: Mapping[str, Any], variant: str | None, wanted: Iterable[str]
) -> list[str]:
    """Return the names of the files that a reference needs. Raises UnusableError."""
    if hub.file:
        if hub.file not in names:
            message = f'the repository "{hub.repository}" has no file {hub.file} at the revision {hub.revision}'
            raise UnusableError(model_problem("missing.model", message, "look at its list of files on the Hub"))
        return [hub.file]
    if index:
        return pipeline_files(hub.repository, names, component_names(index, wanted), variant)
    if "config.json" in names and noun != "LoRA":
        return network_files(hub.repository, names, variant)
    return [only_lora(hub.repository, names)]


def _prior(hub: HubReference, card: Any) -> HubReference | None:
    """Return the repository of a decoder's prior, from the front matter of its README or from its own name."""
    named = card.get("prior") if card else None
    first = named if isinstance(named, str) else next(iter(named or ()), None)
    found = hub_reference(str(first)) if first else None
    beside = prior_reference(hub.repository, Path())
    return found or (hub_reference(beside) if beside else None)


def _tokenizers(name: str) -> Iterator[Download]:
    """Yield the vocabulary that a checkpoint of one file lacks, which is known only once the file is there."""
    found = find_model(name)
    source = tokenizer_source(found) if isinstance(found, Problem) else None
    if source is None:
        return
    from huggingface_hub import HfApi

    hub = HubReference(source[0])
    info = _asked(hub, lambda: HfApi().model_info(hub.repository, files_metadata=True))
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or ()}
    files = tuple(RemoteFile(file, sizes[file]) for file in source[1] if file in sizes)
    yield Download(hub.repository, hub.revision, str(info.sha), files)


def _asked(hub: HubReference, ask: Callable[[], Answer]) -> Answer:
    """Return the result of ``ask``, a call to the Hub. Raises UnusableError with a message for each of its errors."""
    from huggingface_hub import errors

    try:
        return ask()
    except (errors.HTTPError, OSError) as error:  # its errors derive from one or both
        raise UnusableError(_refusal(hub, error)) from error


def _refusal(hub: HubReference, error: Exception) -> Problem:
    """Return the problem for an error of huggingface_hub."""
    from huggingface_hub import errors

    where = f'the repository "{hub.repository}" at the revision {hub.revision}'
    if isinstance(error, errors.GatedRepoError):
        hint = f"agree on https://huggingface.co/{hub.repository}, then set HF_TOKEN to a token of yours"
        return model_problem("missing.repository", f"{where} is open only to those who agreed to its terms", hint)
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "look at its spelling; for a private one set HF_TOKEN to a token that may read it"
        return model_problem(
            "missing.repository", f'the Hub has no repository "{hub.repository}", or it is private', hint
        )
    if isinstance(error, errors.RevisionNotFoundError):
        message = f'the repository "{hub.repository}" has no revision {hub.revision}'
        return model_problem("missing.repository", message, "look at its branches")
    if isinstance(error, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)):
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        reason = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        return model_problem(
            "missing.repository", f"{where} cannot be asked for: {reason}", "try again with a connection"
        )
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    message = f"{where} cannot be fetched: {first}"
    return model_problem("missing.repository", message, "try again; what was fetched is kept")
