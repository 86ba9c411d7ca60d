"""A legacy TiTok as one writes it down in PyTorch: the yardstick for the speed of ours.

Modules of the library wherever it has them, nothing fused and nothing tuned, weights from a state with the published
names. Results are those of ``titokcodec`` to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.config import TiTokConfig, Tower

State = Mapping[str, Tensor]


class Block(nn.Module):
    """CLIP's residual attention block on (L, B, W)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Plain:
    """Encoder and decoder of a two-stage TiTok.

    Args:
        state: Its tensors by their published names; their type is the one it computes in.
        config: Its architecture.
    """

    def __init__(self, state: State, config: TiTokConfig) -> None:
        self.state, self.config = state, config
        self.blocks = {side: _blocks(state, side, getattr(config, side)) for side in ("encoder", "decoder")}

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, K) tokens."""
        state, config = self.state, self.config
        x = F.conv2d(
            pixels.to(state["latent_tokens"].dtype),
            state["encoder.patch_embed.weight"],
            state["encoder.patch_embed.bias"],
            stride=config.patch_size,
        )
        x = self._through("encoder", x.flatten(2).transpose(1, 2), state["latent_tokens"].expand(len(x), -1, -1))
        x = self._norm(x[:, -config.tokens :], "encoder.ln_post")
        x = x.reshape(len(x), -1, config.tokens, 1)  # without a permute, as published
        x = F.conv2d(x, state["encoder.conv_out.weight"], state["encoder.conv_out.bias"])
        x = F.normalize(x[..., 0].transpose(1, 2).flatten(0, 1).float(), dim=-1)
        book = F.normalize(state["quantize.embedding.weight"].float(), dim=-1)
        distance = x.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * x @ book.T
        return distance.argmin(1).view(-1, config.tokens)

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, K) tokens -> (B, 3, H, W) in [0, 1]."""
        state, config = self.state, self.config
        codes = F.normalize(state["quantize.embedding.weight"], dim=-1)[tokens]
        latents = F.linear(codes, state["decoder.decoder_embed.weight"], state["decoder.decoder_embed.bias"])
        x = self._through("decoder", state["decoder.mask_token"].expand(len(tokens), config.grid**2, -1), latents)
        x = self._norm(x[:, 1 : 1 + config.grid**2], "decoder.ln_post")
        x = x.transpose(1, 2).unflatten(2, (config.grid, config.grid))
        x = F.conv2d(x, state["decoder.ffn.0.weight"], state["decoder.ffn.0.bias"]).tanh()
        share = F.conv2d(x, state["decoder.ffn.2.weight"], state["decoder.ffn.2.bias"]).softmax(1)
        return self._pixels(torch.einsum("bnhw,nd->bdhw", share, state["pixel_quantize.embedding.weight"])).clamp(0, 1)

    def _through(self, side: str, cells: Tensor, latents: Tensor) -> Tensor:
        state = self.state
        first = state[f"{side}.class_embedding"].expand(len(cells), 1, -1)
        x = torch.cat([first, cells], dim=1) + state[f"{side}.positional_embedding"]
        x = torch.cat([x, latents + state[f"{side}.latent_token_positional_embedding"]], dim=1)
        return self.blocks[side](self._norm(x, f"{side}.ln_pre").transpose(0, 1)).transpose(0, 1)

    def _pixels(self, x: Tensor) -> Tensor:
        """The decoder of MaskGIT-VQGAN."""
        x = self._residual(self._residual(self._conv(x, "conv_in"), "mid.0"), "mid.1")
        for level in (4, 3, 2, 1, 0):
            x = self._residual(self._residual(x, f"up.{level}.block.0"), f"up.{level}.block.1")
            if level:
                x = self._conv(F.interpolate(x, scale_factor=2), f"up.{level}.upsample_conv")
        return self._conv(self._silu(x, "norm_out"), "conv_out")

    def _residual(self, x: Tensor, key: str) -> Tensor:
        h = self._conv(self._silu(x, f"{key}.norm1"), f"{key}.conv1")
        h = self._conv(self._silu(h, f"{key}.norm2"), f"{key}.conv2")
        shortcut = self.state.get(f"pixel_decoder.{key}.nin_shortcut.weight")
        return h + (x if shortcut is None else F.conv2d(h, shortcut))  # of h, as published

    def _conv(self, x: Tensor, key: str) -> Tensor:
        weight, bias = (self.state.get(f"pixel_decoder.{key}.{part}") for part in ("weight", "bias"))
        return F.conv2d(x, weight, bias, padding=1)

    def _silu(self, x: Tensor, key: str) -> Tensor:
        weight, bias = (self.state[f"pixel_decoder.{key}.{part}"] for part in ("weight", "bias"))
        return F.silu(F.group_norm(x, 32, weight, bias, eps=1e-6))

    def _norm(self, x: Tensor, key: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{key}.weight"], self.state[f"{key}.bias"])


def _blocks(state: State, side: str, tower: Tower) -> nn.Sequential:
    prefix = f"{side}.transformer."
    with torch.device("meta"):
        blocks = nn.Sequential(*(Block(tower.width, tower.heads) for _ in range(tower.layers)))
    own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    blocks.load_state_dict(own, assign=True)
    return blocks.eval().requires_grad_(False)
