"""Models from the Hugging Face hub, through its own library, which brings caches, tokens and offline flags along."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from titokcodec.errors import WeightsError

WEIGHTS, CONFIG = "model.safetensors", "config.json"  # what a repository, or a folder in its layout, holds
PUBLISHED_REPOSITORIES = tuple(
    f"yucornetto/tokenizer_titok_{which}_imagenet"
    for which in ("l32", "b64", "s128", "bl64_vq8k", "bl128_vq8k", "sl256_vq8k")
)
_ABSENT = "EntryNotFoundError"
_WRONG_NAME = {"RepositoryNotFoundError", "HFValidationError"}


def download(repository: str) -> Path:
    """Path in the hub's cache of a repository's weights; its config lies beside them if it has one.

    Nothing is fetched that the cache holds, and nothing at all with ``HF_HUB_OFFLINE=1``. Pickled files are never
    fetched: ``titok-convert`` takes those, from a local path.

    Raises:
        WeightsError: huggingface_hub is missing, the repository or its weights are, or the hub cannot be reached.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError("hub: names need huggingface_hub: pip install 'titokcodec[hub]'") from None
    path = _fetch(hf_hub_download, repository, WEIGHTS)
    with suppress(_Absent):
        _fetch(hf_hub_download, repository, CONFIG)
    return path


class _Absent(WeightsError):
    """The repository has no such file."""


def _fetch(get: Callable[[str, str], str], repository: str, name: str) -> Path:
    try:
        return Path(get(repository, name))
    except Exception as error:  # the hub's many errors all mean the same here
        kinds = {kind.__name__ for kind in type(error).__mro__}  # where these classes live depends on the version
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"could not get {name} of {repository!r} from the hub: {reason}"
        if kinds & _WRONG_NAME:
            message = (
                f"the hub has no repository {repository!r} that you may read: names look like org/name, and the "
                f"published tokenizers are {', '.join(f'hub:{known}' for known in PUBLISHED_REPOSITORIES)}"
            )
        raise (_Absent if _ABSENT in kinds else WeightsError)(message) from None
