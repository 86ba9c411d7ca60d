"""A legacy TiTok in straightforward PyTorch: the baseline for the speed of ours.

Modules of the library wherever it has them, nothing fused and nothing tuned, weights from a state with the published
names. Results are those of ``titokcodec`` up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.models.config import TiTokConfig, Tower

State = Mapping[str, Tensor]
LAYER_NAMES = {  # published, and those of nn.TransformerEncoderLayer
    "attn.": "self_attn.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "linear1.",
    "mlp.c_proj.": "linear2.",
}


class Plain:
    """Encoder and decoder of a two-stage TiTok.

    Args:
        state: Its tensors by their published names; their type is the one it computes in.
        config: Its architecture.
    """

    def __init__(self, state: State, config: TiTokConfig) -> None:
        self.state, self.config = state, config
        self.layers = {side: _transformer(state, side, getattr(config, side)) for side in ("encoder", "decoder")}

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, K) tokens."""
        state, config = self.state, self.config
        x = self._conv(pixels.to(state["latent_tokens"].dtype), "encoder.patch_embed", stride=config.patch_size)
        x = self._tower("encoder", x.flatten(2).transpose(1, 2), state["latent_tokens"].expand(len(x), -1, -1))
        x = self._layer_norm(x[:, -config.tokens :], "encoder.ln_post")
        x = self._conv(x.reshape(len(x), -1, config.tokens, 1), "encoder.conv_out")  # not permuted, as published
        x = F.normalize(x[..., 0].transpose(1, 2).flatten(0, 1).float(), dim=-1)
        book = F.normalize(state["quantize.embedding.weight"].float(), dim=-1)
        distance = x.square().sum(1, keepdim=True) + book.square().sum(1) - 2 * x @ book.T
        return distance.argmin(1).view(-1, config.tokens)

    @torch.inference_mode()
    def decode(self, tokens: Tensor) -> Tensor:
        """(B, K) tokens -> (B, 3, H, W) in [0, 1]."""
        state, grid = self.state, self.config.grid
        codes = F.normalize(state["quantize.embedding.weight"], dim=-1)[tokens]
        latents = F.linear(codes, state["decoder.decoder_embed.weight"], state["decoder.decoder_embed.bias"])
        x = self._tower("decoder", state["decoder.mask_token"].expand(len(tokens), grid**2, -1), latents)
        x = self._layer_norm(x[:, 1 : 1 + grid**2], "decoder.ln_post").transpose(1, 2).unflatten(2, (grid, grid))
        weights = self._conv(self._conv(x, "decoder.ffn.0").tanh(), "decoder.ffn.2").softmax(1)
        return self._pixels(torch.einsum("bnhw,nd->bdhw", weights, state["pixel_quantize.embedding.weight"])).clamp(
            0, 1
        )

    def _tower(self, side: str, patches: Tensor, latents: Tensor) -> Tensor:
        state = self.state
        first = state[f"{side}.class_embedding"].expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1) + state[f"{side}.positional_embedding"]
        x = torch.cat([x, latents + state[f"{side}.latent_token_positional_embedding"]], dim=1)
        return self.layers[side](self._layer_norm(x, f"{side}.ln_pre").transpose(0, 1)).transpose(0, 1)

    def _pixels(self, x: Tensor) -> Tensor:
        """The decoder of MaskGIT-VQGAN."""
        x = self._conv(x, "pixel_decoder.conv_in", padding=1)
        x = self._residual(self._residual(x, "mid.0"), "mid.1")
        for level in (4, 3, 2, 1, 0):
            x = self._residual(self._residual(x, f"up.{level}.block.0"), f"up.{level}.block.1")
            if level:
                x = self._conv(F.interpolate(x, scale_factor=2), f"pixel_decoder.up.{level}.upsample_conv", padding=1)
        return self._norm_silu_conv(x, "pixel_decoder.norm_out", "pixel_decoder.conv_out")

    def _residual(self, x: Tensor, block: str) -> Tensor:
        key = f"pixel_decoder.{block}"
        h = self._norm_silu_conv(x, f"{key}.norm1", f"{key}.conv1")
        h = self._norm_silu_conv(h, f"{key}.norm2", f"{key}.conv2")
        changes = f"{key}.nin_shortcut.weight" in self.state
        return h + (self._conv(h, f"{key}.nin_shortcut") if changes else x)  # of h, as published

    def _norm_silu_conv(self, x: Tensor, norm: str, conv: str) -> Tensor:
        x = F.group_norm(x, 32, self.state[f"{norm}.weight"], self.state[f"{norm}.bias"], eps=1e-6)
        return self._conv(F.silu(x), conv, padding=1)

    def _conv(self, x: Tensor, key: str, **how: int) -> Tensor:
        return F.conv2d(x, self.state[f"{key}.weight"], self.state.get(f"{key}.bias"), **how)

    def _layer_norm(self, x: Tensor, key: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.state[f"{key}.weight"], self.state[f"{key}.bias"])


def _transformer(state: State, side: str, tower: Tower) -> nn.Sequential:
    """CLIP's blocks on (L, B, W)."""
    with torch.device("meta"):
        layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(tower.width, tower.heads, 4 * tower.width, 0, "gelu", norm_first=True)
                for _ in range(tower.layers)
            )
        )
    prefix, own = f"{side}.transformer.", {}
    for name, value in state.items():
        if name.startswith(prefix):
            layer, _, rest = name.removeprefix(prefix).partition(".")
            old = next(old for old in LAYER_NAMES if rest.startswith(old))
            own[f"{layer}.{LAYER_NAMES[old]}{rest.removeprefix(old)}"] = value
    layers.load_state_dict(own, assign=True)
    return layers.eval().requires_grad_(False)
