"""The generator: a class to tokens, which a codec with its tokenizer decodes.

Most are masked (MaskGIT, Chang et al. 2022), some autoregressive; they are asked for pictures alike.
"""

from __future__ import annotations

import os
import reprlib
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from titokcodec import autoregressive
from titokcodec.class_labels import Labels, class_number, numbers_of
from titokcodec.errors import TitokError, WeightsError
from titokcodec.models.code_transformer import CodeTransformer
from titokcodec.models.maskgit import Network
from titokcodec.runtime.acceleration import Accelerated
from titokcodec.runtime.devices import choose_device, choose_dtype
from titokcodec.runtime.isolation import isolated
from titokcodec.runtime.tokens import described, either, in_range, shaped
from titokcodec.runtime.transfer import to_device
from titokcodec.sampling import PUBLISHED, Logits, Noise, Settings, is_whole, walk_parts
from titokcodec.weights import releases, tokenizers
from titokcodec.weights.generators import Card, read, save

__all__ = ["PUBLISHED", "Card", "Generator", "save"]


class Generator:
    """A generator, masked or autoregressive. Make one with ``from_pretrained``, or from a model at hand.

    The keyword arguments called settings are those of ``titokcodec.sampling.Settings``. What is not given is as the
    generator's file has it (``settings``) or else ``steps=8``, ``guidance_scale=4.5``, ``guidance="linear"``,
    ``guidance_interval=(0, 1)``, ``schedule="arccos"``, ``temperature=1.0``, ``softmax_temperature=False``,
    ``top_p=1.0``, ``order="confidence"``, ``fine_temperature=1.0``.
    ``PUBLISHED`` holds the published ones: ``sample(labels, **PUBLISHED[name])``.

    Where ``config.counts`` has several numbers of tokens, pictures are sampled coarse to fine, and the first tokens are
    pictures already: at the same seed those with fewer tokens are the first tokens of those with more.

    Attributes:
        card: All of the following and ``fingerprint``.
        config, name, tokenizer, class_names, fingerprint, settings: See ``Card``.
        device, dtype: Where and in which precision the network runs, whatever the caller's default type, autocast and
            inference mode. Logits and noise are float32 always, and all tensors handed out plain ones.
        network: What is called for logits: the model, until ``compile`` puts something faster in its place. Pickled or
            copied, a generator has the former again.
    """

    def __init__(self, model: Network, card: Card, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model.to(device=device, dtype=dtype).eval()
        self.network: Logits = self.model
        self.card, self.device, self.dtype = card, device, dtype
        self.name, self.config, self.fingerprint = card.name, card.config, card.fingerprint
        self.tokenizer, self.class_names, self.settings = card.tokenizer, card.class_names, card.settings or Settings()

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
    ) -> Generator:
        """Load a generator.

        Args:
            source: None for the bundled one, a file of this project or a published checkpoint (``.safetensors``,
                ``.bin``, ``.pt``, ``.pth``), a folder with ``model.safetensors`` and maybe ``config.json``, or
                ``hub:org/name``.
            device: ``auto`` takes CUDA, then MPS, then the CPU.
            dtype: ``auto``, ``bf16`` or ``fp32``.

        Raises:
            TitokError: the weights or the device cannot be had.
        """
        chosen = choose_device(device)
        precision = choose_dtype(chosen, dtype)
        with isolated(chosen):
            card, model = read(source)
            return cls(model, card, chosen, precision)

    def compile(self, *, kernels: bool = True) -> None:
        """Make ``sample``, ``inpaint`` and ``logits`` faster for many calls of few batch sizes.

        On CUDA every pass through the network, both branches of guidance in one, is a graph; the first calls at a
        batch size pay for it. Autoregressive sampling, whose passes differ in length, stays as it is.

        Args:
            kernels: Fuse kernels by ``torch.compile`` too: tens of seconds for each new shape, and on a CPU a C++
                compiler.
        """
        self.network = Accelerated(self.model, self.device, kernels)

    def check_fits(self, tokenizer: tokenizers.Weights) -> None:
        """Raise ``WeightsError`` unless the tokenizer (``codec.weights``) can decode what this generator makes.

        Its fingerprint must be the one that the generator was trained for. Where that is not known, numbers of codes
        and tokens must agree.
        """
        if not hasattr(tokenizer, "config"):
            raise TitokError("check_fits takes the weights of a tokenizer: give codec.weights")
        config = tokenizer.config
        if self.tokenizer is not None and self.tokenizer != tokenizer.fingerprint:
            mine, other = _called(self.tokenizer), _called(tokenizer.fingerprint, tokenizer.name)
            raise WeightsError(
                f"generator {self.name} was trained for tokenizer {mine}, not for {other}: give the weights of that one"
            )
        counts, codes = self.config.counts, self.config.codes
        if codes != config.codes or not config.min_tokens <= counts[0] <= counts[-1] <= config.tokens:
            span = f"{config.min_tokens} to {config.tokens}" if config.nested else config.tokens
            raise WeightsError(
                f"generator {self.name} makes {either(counts)} tokens of {codes} codes, but tokenizer "
                f"{tokenizer.name} has {span} tokens of {config.codes} codes: give another"
            )

    def logits(self, tokens: Tensor, labels: Labels | None = None) -> Tensor:
        """Logits over codes for every position; from an autoregressive generator those given the tokens before it.

        Args:
            tokens: (B, K) integers in [0, N], K one of ``config.counts``; N stands for a masked one, which an
                autoregressive generator does not know: give it any code where nothing is known yet.
            labels: A class number, class name or None (no class) for each row; None for no class anywhere.

        Returns:
            (B, K, N) float32 on the generator's device.

        Raises:
            TitokError: wrong shape, type or values.
        """
        tokens = in_range(self._counted(tokens), self.config.codes + (not self.config.causal))
        numbers, _ = self._numbers(labels, len(tokens))
        with isolated(self.device):
            return self.network(tokens.to(self.device), numbers)

    def sample(
        self,
        labels: Labels,
        *,
        tokens: int | None = None,
        seed: int | None = None,
        noise: Noise | None = None,
        **settings: Any,
    ) -> Tensor:
        """Tokens of new pictures, all of them in one batch.

        Args:
            labels: A class number, class name or None (any class; -1 in a tensor) for each picture.
            tokens: K, one of ``config.counts``; None for as many as the generator's file says, or else the most.
            seed: The same one gives the same tokens for the same labels on the same device in the same precision.
                Pictures share the stream of random numbers, so one alone comes out differently than in a batch.
            noise: The source of random numbers instead, see ``titokcodec.sampling.Noise``.
            settings: See the class.

        Returns:
            (B, K) int64 on the generator's device.

        Raises:
            TitokError: an unknown label, another number of tokens, or settings that make no sense.
        """
        numbers, guided = self._numbers(labels)
        count = self.count_of(tokens)
        start = numbers.new_full((len(numbers), count), self.config.mask_id)
        masked = np.ones((len(numbers), count), bool)
        return self._sampled(start, masked, numbers, guided, seed, noise, settings)

    def inpaint(
        self,
        tokens: Tensor,
        keep: Tensor,
        labels: Labels | None = None,
        *,
        seed: int | None = None,
        noise: Noise | None = None,
        **settings: Any,
    ) -> Tensor:
        """Choose some tokens of pictures anew, to go with the others.

        Of several parts, the first one's tokens are chosen first, and later ones go with them. An autoregressive
        generator chooses tokens in order, and only those before it have a say in each: kept ones that come later have
        none.

        Args:
            tokens: (B, K) integers in [0, N) where they are kept, any elsewhere; K is one of ``config.counts``.
            keep: (B, K) bool; what is not kept is chosen anew.
            labels: As in ``sample``; None for no class anywhere.
            seed, noise, settings: As in ``sample``. Schedules count the tokens of a row's part that are chosen anew.

        Returns:
            (B, K) int64 on the generator's device.

        Raises:
            TitokError: wrong shape, type or values.
        """
        tokens = self._counted(tokens)
        if not isinstance(keep, Tensor) or keep.dtype != torch.bool or keep.shape != tokens.shape:
            raise TitokError(f"keep must be a bool tensor of the shape of the tokens, not {described(keep)}")
        tokens = in_range(tokens.masked_fill(~keep.to(tokens.device), 0), self.config.codes)
        start = tokens.to(self.device).masked_fill(~keep.to(self.device), self.config.mask_id)
        masked = (~keep).cpu().numpy()
        return self._sampled(start, masked, *self._numbers(labels, len(start)), seed, noise, settings)

    def count_of(self, tokens: int | None = None) -> int:
        """A number of tokens that pictures can have, by default the file's. Raises ``TitokError`` for any other."""
        counts = self.config.counts
        tokens = self.card.default_tokens if tokens is None else tokens
        if tokens is not None and (not is_whole(tokens) or tokens not in counts):
            raise TitokError(f"tokens is {tokens!r}: {self.name} makes pictures of {either(counts)} tokens")
        return counts[-1] if tokens is None else int(tokens)

    def most(self, available: int) -> int:
        """The largest number of tokens that it makes, of those that are no more than this.

        Raises:
            TitokError: even its smallest is more.
        """
        fitting = [count for count in self.config.counts if count <= available]
        if not fitting:
            wanted = self.config.counts[0]
            raise TitokError(f"{available} tokens are too few: generator {self.name} needs {wanted}")
        return fitting[-1]

    def _counted(self, tokens: object) -> Tensor:
        """(B, K) tokens as int64, K being one of the numbers of tokens that there can be."""
        return shaped(tokens, self.config.counts)

    def _sampled(
        self,
        tokens: Tensor,
        masked: np.ndarray,
        labels: Tensor,
        guided: bool,
        seed: int | None,
        noise: Noise | None,
        settings: dict[str, Any],
    ) -> Tensor:
        if noise is not None and not callable(noise):
            raise TitokError(f"noise is {reprlib.repr(noise)}: give a function of step and shape, or a seed instead")
        chosen, noise = replace(self.settings, **settings), noise or uniform(self.device, seed)
        ends = [count for count in self.config.counts if count <= tokens.shape[1]]
        with isolated(self.device):
            if self.config.causal:
                assert isinstance(self.model, CodeTransformer)
                return autoregressive.sample(self.model, tokens, labels, masked, ends, chosen, noise, guided)
            mask_id = self.config.mask_id
            return walk_parts(self.network, tokens, labels, masked, ends, mask_id, chosen, noise, guided)

    def class_number(self, label: int | str | None) -> int:
        """The number of a class, given by number or name; -1 for None. Raises ``TitokError`` if there is none."""
        return class_number(label, self.card)

    def _numbers(self, labels: Labels | None, count: int | None = None) -> tuple[Tensor, bool]:
        """(B,) int64 labels on the device, -1 for no class, and whether there is any class among them."""
        numbers = numbers_of(labels, self.card, count)
        return to_device(np.array(numbers, np.int64), self.device), any(number >= 0 for number in numbers)


def uniform(device: torch.device, seed: int | None) -> Noise:
    """Noise from a stream of its own, or from torch's without a seed. Raises ``TitokError`` for what is no seed."""
    generator = None
    if seed is not None:
        if not is_whole(seed) or not 0 <= seed < 1 << 63:
            raise TitokError(f"seed is {seed!r}: give a whole number from 0 to 2^63 - 1")
        generator = torch.Generator(device).manual_seed(int(seed))
    return lambda step, shape: torch.rand(shape, generator=generator, device=device, dtype=torch.float32)


def _called(fingerprint: bytes, name: str = "") -> str:
    known = next((release.name for release in releases.RELEASES if release.fingerprint == fingerprint), name)
    return f"{known} ({fingerprint.hex()})" if known else fingerprint.hex()
