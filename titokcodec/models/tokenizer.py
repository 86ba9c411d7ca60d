"""TiTok: a picture as a short row of integers (Yu et al. 2024, section 3; data flow of the published code).

pixels (B,3,H,H) -> Encoder -> latents (B,K,d) -> VectorQuantizer -> tokens (B,K)
tokens (B,k), k <= K -> codes (B,k,d) -> Decoder -> head -> pixels (B,3,H,H)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models import vqgan
from titokcodec.models.config import PROXY_CODES, SKETCH, TiTokConfig
from titokcodec.models.layers import Transformer, init_weights
from titokcodec.models.linear import LinearDecoder, LinearEncoder
from titokcodec.models.quantizer import Quantized, VectorQuantizer
from titokcodec.models.refiner import Refiner
from titokcodec.models.vqgan_config import CODE_WIDTH


class Encoder(Transformer):
    """Reads patches and latent tokens together, and hands back the latents alone."""

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__(config.encoder, config.grid**2, config.tokens)
        self.pool, self.legacy = config.pool, config.legacy
        side = config.patch_size // config.pool
        self.patch_embed = nn.Conv2d(3, config.encoder.width, side, stride=side)
        self.conv_out = nn.Conv2d(config.encoder.width, config.code_width, 1)
        self.linear: LinearEncoder | None = None
        self.linear_embed: nn.Linear | None = None
        if config.spectrum:
            self.linear = LinearEncoder(config.spectrum, config.tokens, config.code_width, config.components)
            self.linear_embed = nn.Linear(config.code_width, config.encoder.width)

    def forward(self, pixels: Tensor, latent_tokens: Tensor) -> Tensor:
        """(B, 3, H, H) in [0, 1] and (K, W) -> (B, K, d).

        With a linear path, the transformer sees the latents of that path, and adds its own to them.
        """
        found = None
        queries = latent_tokens.expand(len(pixels), -1, -1)
        if self.linear is not None and self.linear_embed is not None:
            found = self.linear(pixels)
            queries = queries + self.linear_embed(found.to(queries.dtype))
        pixels = pixels.to(latent_tokens.dtype)
        if self.pool > 1:
            pixels = F.avg_pool2d(pixels, self.pool)
        patches = self.patch_embed(pixels).flatten(2).transpose(1, 2)
        _, latents = self.attend(patches, queries)
        latents = self.ln_post(latents)
        batch, tokens, width = latents.shape
        # The first published models reinterpret (K, W) as (W, K) here instead of transposing, and were trained to.
        latents = latents.reshape(batch, width, tokens) if self.legacy else latents.transpose(1, 2)
        latents = self.conv_out(latents.unsqueeze(-1)).squeeze(-1).transpose(1, 2)
        return latents if found is None else found + latents.float()


class Upsampler(nn.Module):
    """Our pixel head: cells unfold onto a finer grid, are smoothed by convolutions, and spread to sub-pixels.

    All convolutions run on the grid, at a fraction of the pixels; the last one sees neighbouring cells, so no seams
    remain between them.
    """

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        width, finer = config.head_width, config.head_grid // config.grid
        subpixels = config.image_size // config.head_grid
        self.unfold = nn.Sequential(
            nn.Conv2d(config.decoder.width, width * finer**2, 1), nn.PixelShuffle(finer) if finer > 1 else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in range(config.head_blocks)
        )
        self.spread = nn.Sequential(nn.Conv2d(width, 3 * subpixels**2, 3, padding=1), nn.PixelShuffle(subpixels))

    def forward(self, cells: Tensor) -> Tensor:
        x = self.unfold(cells)
        for block in self.blocks:
            x = x + block(x)
        return self.spread(x) + 0.5


class PixelHead(nn.Module):
    """The published one-stage head in its ``ffn`` layout: every cell's 3 x p x p pixels from one linear map."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.add_module("0", nn.Conv2d(width, 3 * patch * patch, 1))
        self.patch = patch

    def forward(self, cells: Tensor) -> Tensor:
        x = self.get_submodule("0")(cells)
        batch, _, rows, columns = x.shape
        p = self.patch
        x = x.view(batch, p, p, 3, rows, columns)  # channels count (row in patch, column in patch, colour)
        return x.permute(0, 3, 4, 1, 5, 2).reshape(batch, 3, rows * p, columns * p)


class Decoder(Transformer):
    """Decodes any prefix of the codes to the cells of a picture, and these to pixels.

    Every cell starts from the same mask token and, with a linear path, from its part of the sketch.
    """

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__(config.decoder, config.grid**2, config.tokens)
        width = config.decoder.width
        self.grid = config.grid
        self.decoder_embed = nn.Linear(config.code_width, width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.conv_out: nn.Module = nn.Identity()
        self.linear: LinearDecoder | None = None
        self.sketch_embed: nn.Linear | None = None
        if config.spectrum:
            self.linear = LinearDecoder(config.spectrum, config.tokens, config.code_width, config.components)
            self.patch = SKETCH // config.grid
            self.sketch_embed = nn.Linear(3 * self.patch**2, width)
        self.ffn: nn.Module
        if config.head == "proxy":
            self.ffn = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, PROXY_CODES, 1))
        elif config.head == "pixels":
            self.ffn = PixelHead(width, config.patch_size)
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)
        elif config.head == "refiner":
            self.ffn = Refiner(config)
        else:
            self.ffn = Upsampler(config)

    @property
    def refiner(self) -> Refiner:
        """The head of models with linear paths."""
        assert isinstance(self.ffn, Refiner)
        return self.ffn

    def forward(self, codes: Tensor) -> Tensor:
        """(B, k, d) -> (B, 3, H, H) pixels, or (B, 1024, H/p, H/p) logits over proxy codes."""
        cells, sketch = self.cells_and_sketch(codes)
        return self.conv_out(self.ffn(cells)) if sketch is None else self.ffn(cells, sketch)

    def cells_and_sketch(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """The transformer's (B, W, H/p, H/p) cells and, with a linear path, its (B, 3, 64, 64) sketch."""
        masks = self.mask_token.expand(len(codes), self.cells, -1)
        sketch = None
        if self.linear is not None and self.sketch_embed is not None:
            sketch = self.linear(codes)
            patches = F.pixel_unshuffle(sketch - 0.5, self.patch).flatten(2).transpose(1, 2)
            masks = masks + self.sketch_embed(patches.to(masks.dtype))
        cells, _ = self.attend(masks, self.decoder_embed(codes.to(masks.dtype)))
        return self.ln_post(cells).transpose(1, 2).unflatten(2, (self.grid, self.grid)), sketch


class TiTok(nn.Module):
    """The whole tokenizer. Pixels are RGB in [0, 1], tokens are int64 in [0, N)."""

    def __init__(self, config: TiTokConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_tokens = nn.Parameter(torch.randn(config.tokens, config.encoder.width) * config.encoder.width**-0.5)
        self.encoder = Encoder(config)
        positions = config.tokens if config.spectrum else 0
        self.quantize = VectorQuantizer(
            config.codes, config.code_width, config.l2_normalised, config.codebooks, positions, config.components
        )
        self.decoder = Decoder(config)
        self.apply(init_weights)
        if config.spectrum:  # the transformers add nothing yet: pixels are those of the sketch
            nn.init.zeros_(self.encoder.conv_out.weight)
            self.decoder.refiner.silence()
        if config.head == "proxy":
            self.pixel_quantize = VectorQuantizer(PROXY_CODES, CODE_WIDTH, l2_normalised=False)
            self.pixel_decoder = vqgan.Decoder()

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, H) of any float type -> (B, K, d), before quantization."""
        return self.encoder(pixels, self.latent_tokens)

    def keep_exact(self) -> None:
        """Back to float32 what must not run in less, after the model was moved to another type."""
        for part in (self.quantize, self.encoder.linear, self.decoder.linear):
            if part is not None:
                part.float()

    def encode(self, pixels: Tensor, tokens: int | None = None) -> Tensor:
        """(B, 3, H, H) of any float type in [0, 1] -> (B, tokens) int64; a short answer is a prefix of the long one."""
        return self.quantize.nearest(self.latents(pixels)[:, :tokens])

    def decode_codes(self, codes: Tensor) -> Tensor:
        """(B, k, d) codes -> (B, 3, H, H) pixels, not clamped."""
        return self.to_pixels(self.decoder(codes), *([self.pixel_decoder] if self.config.head == "proxy" else []))

    def sketch(self, codes: Tensor) -> Tensor:
        """(B, k, d) codes -> (B, 3, 64, 64) pixels, not clamped: what ``decode_codes`` adds fine detail to.

        In less than half of its time. Of models with linear paths only."""
        cells, sketch = self.decoder.cells_and_sketch(codes)
        assert sketch is not None, "only models with linear paths have one"
        return self.decoder.refiner.refine_sketch(cells, sketch)[1]

    def to_pixels(self, decoded: Tensor, pixel_decoder: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The decoder's output as pixels: logits over proxy codes mix these and go through ``pixel_decoder``."""
        if pixel_decoder is None:
            return decoded
        soft = decoded.softmax(1).flatten(2).transpose(1, 2) @ self.pixel_quantize.embedding.weight.to(decoded.dtype)
        return pixel_decoder(soft.transpose(1, 2).unflatten(2, (self.config.grid, self.config.grid)))

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, k) int64, any k up to K -> (B, 3, H, H) float32 in [0, 1]."""
        return self.decode_codes(self.quantize.lookup(tokens)).float().clamp(0, 1)

    def forward(self, pixels: Tensor) -> Quantized:
        """(B, 3, H, H) -> quantized latents with gradients and losses, for training."""
        return self.quantize(self.latents(pixels))
