"""The networks: names and shapes as published, and the same numbers as a second, plain way to compute them."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from titokcodec.models.config import PRESETS, TiTokConfig, Tower
from titokcodec.models.quantizer import VectorQuantizer
from titokcodec.models.tokenizer import TiTok
from titokcodec.weights import tokenizers

UPSAMPLER = TiTokConfig(
    Tower(32, 2, 4),
    Tower(48, 1, 2),
    tokens=12,
    codes=50,
    code_width=6,
    image_size=64,
    patch_size=16,
    pool=2,
    head_width=8,
    head_blocks=2,
    head_grid=8,
    nested=True,
    min_tokens=4,
)
PIXELS = TiTokConfig(
    Tower(48, 1, 2),
    Tower(32, 2, 4),
    tokens=10,
    codes=50,
    code_width=16,
    image_size=48,
    patch_size=8,
    l2_normalised=False,
    head="pixels",
)
PROXY = TiTokConfig(
    Tower(32, 2, 4),
    Tower(48, 1, 2),
    tokens=6,
    codes=50,
    code_width=6,
    image_size=32,
    patch_size=16,
    head="proxy",
    legacy=True,
)
KINDS = pytest.mark.parametrize("config", [UPSAMPLER, PIXELS, PROXY], ids=["upsampler", "pixels", "proxy"])


def make(config):
    """A model in which every parameter matters: no zero bias, no norm of one."""
    with torch.device("meta"):  # the proxies' pixel decoder has 30 million numbers: draw them once
        model = TiTok(config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    torch.manual_seed(1)
    return filled(model)


@torch.no_grad()
def filled(model):
    """The model with random numbers of a sensible size in every parameter."""
    for name, value in model.named_parameters():
        if value.ndim > 1:
            value.normal_(std=1 / math.sqrt(value[0].numel()))
        else:
            value.normal_(mean=0 if "bias" in name else 1, std=0.2)
    return model


def pictures(config, count=2, seed=2):
    return torch.rand(count, 3, config.image_size, config.image_size, generator=torch.Generator().manual_seed(seed))


def tokens_of(config, count=2, seed=3):
    return torch.randint(config.codes, (count, config.tokens), generator=torch.Generator().manual_seed(seed))


# ---- what the published checkpoints hold ----------------------------------------------------------------------


def published(name):
    """Names and shapes of a published checkpoint, from the facts alone."""
    sizes = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}
    letters, tokens = name.removeprefix("titok_").rstrip("0123456789"), int("".join(filter(str.isdigit, name)))
    legacy = len(letters) == 1
    (encoder, _), (decoder, _) = both = sizes[letters[0]], sizes[letters[-1]]
    codes, d = (4096, 12) if legacy else (8192, 64)
    shapes = {"latent_tokens": (tokens, encoder), "quantize.embedding.weight": (codes, d)}

    def add(key, *shape, bias=True):
        shapes[f"{key}.weight"] = shape
        if bias:
            shapes[f"{key}.bias"] = shape[:1]

    for side, (width, layers) in zip(("encoder", "decoder"), both, strict=True):
        shapes |= {
            f"{side}.class_embedding": (1, width),
            f"{side}.positional_embedding": (257, width),
            f"{side}.latent_token_positional_embedding": (tokens, width),
        }
        add(f"{side}.ln_pre", width)
        add(f"{side}.ln_post", width)
        for i in range(layers):
            block = f"{side}.transformer.{i}"
            add(f"{block}.ln_1", width)
            add(f"{block}.ln_2", width)
            shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            add(f"{block}.attn.out_proj", width, width)
            add(f"{block}.mlp.c_fc", 4 * width, width)
            add(f"{block}.mlp.c_proj", width, 4 * width)
    add("encoder.patch_embed", encoder, 3, 16, 16)
    add("encoder.conv_out", d, encoder, 1, 1)
    add("decoder.decoder_embed", decoder, d)
    shapes["decoder.mask_token"] = (1, 1, decoder)
    if not legacy:
        add("decoder.ffn.0", 768, decoder, 1, 1)
        add("decoder.conv_out", 3, 3, 3, 3)
        return shapes
    add("decoder.ffn.0", 2 * decoder, decoder, 1, 1)
    add("decoder.ffn.2", 1024, 2 * decoder, 1, 1)
    shapes["pixel_quantize.embedding.weight"] = (1024, 256)
    add("pixel_decoder.conv_in", 512, 256, 3, 3)
    blocks = {f"mid.{i}": (512, 512) for i in (0, 1)}
    inputs = 512
    for level, outputs in ((4, 512), (3, 256), (2, 256), (1, 128), (0, 128)):
        blocks |= {f"up.{level}.block.0": (inputs, outputs), f"up.{level}.block.1": (outputs, outputs)}
        if level:
            add(f"pixel_decoder.up.{level}.upsample_conv", outputs, outputs, 3, 3)
        inputs = outputs
    for key, (inputs, outputs) in blocks.items():
        add(f"pixel_decoder.{key}.norm1", inputs)
        add(f"pixel_decoder.{key}.norm2", outputs)
        add(f"pixel_decoder.{key}.conv1", outputs, inputs, 3, 3, bias=False)
        add(f"pixel_decoder.{key}.conv2", outputs, outputs, 3, 3, bias=False)
        if inputs != outputs:
            add(f"pixel_decoder.{key}.nin_shortcut", outputs, outputs, 1, 1, bias=False)
    add("pixel_decoder.norm_out", 128)
    add("pixel_decoder.conv_out", 3, 128, 3, 3)
    return shapes


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("titok_l32", 692, 641_054_735),
        ("titok_b64", 404, 204_814_095),
        ("titok_s128", 308, 83_674_639),
        ("titok_bl64", 459, 390_016_148),
        ("titok_bl128", 459, 390_179_988),
        ("titok_sl256", 411, 330_260_884),
    ],
)
def test_published_sizes_have_the_published_tensors(name, tensors, parameters):
    with torch.device("meta"):
        state = TiTok(PRESETS[name]).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == published(name)
    assert (len(state), sum(value.numel() for value in state.values())) == (tensors, parameters)


@pytest.mark.parametrize("name", ["default", "default_2", "default_large"])
def test_default_gives_the_decoder_more_parameters_and_fits_its_24_megabytes(name, tmp_path):
    model = TiTok(PRESETS[name])
    encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder))
    assert encoder < decoder
    tokenizers.save(tmp_path / "m.safetensors", model, name)
    assert (tmp_path / "m.safetensors").stat().st_size < 24e6


# ---- the same forward pass, written plainly -------------------------------------------------------------------


def norm(x, state, key):
    return F.layer_norm(x, x.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-5)


def linear(x, state, key):
    return x @ state[f"{key}.weight"].T + state[f"{key}.bias"]


def one_by_one(x, state, key):
    weight = state[f"{key}.weight"][:, :, 0, 0]
    return torch.einsum("bi...,oi->bo...", x, weight) + state[f"{key}.bias"].view(-1, *[1] * (x.ndim - 2))


def three_by_three(x, state, key):
    return F.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), padding=1)


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def shuffle(x, factor):
    """Channel (c, i, j) becomes channel c of the pixel at (i, j) in its cell."""
    out = x.new_empty(len(x), x.shape[1] // factor**2, x.shape[2] * factor, x.shape[3] * factor)
    for i in range(factor):
        for j in range(factor):
            out[:, :, i::factor, j::factor] = x[:, i * factor + j :: factor**2]
    return out


def plain_blocks(x, state, side, tower):
    """CLIP's blocks on (L, B, W), with torch's own attention module."""
    for i in range(tower.layers):
        block = f"{side}.transformer.{i}"
        attention = nn.MultiheadAttention(tower.width, tower.heads).eval()
        prefix = f"{block}.attn."
        attention.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        y = norm(x, state, f"{block}.ln_1")
        x = x + attention(y, y, y)[0]
        x = x + linear(
            gelu(linear(norm(x, state, f"{block}.ln_2"), state, f"{block}.mlp.c_fc")), state, f"{block}.mlp.c_proj"
        )
    return x


def plain_sequence(cells, latents, state, side, tower):
    first = state[f"{side}.class_embedding"].unsqueeze(0).repeat(len(cells), 1, 1)
    cells = torch.cat([first, cells], dim=1) + state[f"{side}.positional_embedding"]
    latents = latents + state[f"{side}.latent_token_positional_embedding"][: latents.shape[1]]
    x = norm(torch.cat([cells, latents], dim=1), state, f"{side}.ln_pre")
    return plain_blocks(x.permute(1, 0, 2), state, side, tower).permute(1, 0, 2)


def plain_latents(pixels, state, config):
    batch, grid, p = len(pixels), config.grid, config.patch_size // config.pool
    pixels = pixels.view(batch, 3, grid * p, config.pool, grid * p, config.pool).mean((3, 5))
    patches = torch.einsum(
        "bcipjq,wcpq->bijw", pixels.view(batch, 3, grid, p, grid, p), state["encoder.patch_embed.weight"]
    )
    patches = patches.reshape(batch, grid * grid, -1) + state["encoder.patch_embed.bias"]
    x = plain_sequence(patches, state["latent_tokens"].repeat(batch, 1, 1), state, "encoder", config.encoder)
    x = norm(x[:, -config.tokens :], state, "encoder.ln_post")
    if config.legacy:
        x = x.reshape(batch, config.encoder.width, config.tokens, 1)  # the published slip
    else:
        x = x.reshape(batch, config.tokens, config.encoder.width, 1).permute(0, 2, 1, 3)
    return one_by_one(x, state, "encoder.conv_out")[..., 0].permute(0, 2, 1)


def plain_tokens(latents, state, config):
    book = state["quantize.embedding.weight"]
    if config.l2_normalised:
        latents = latents / latents.norm(dim=-1, keepdim=True)
        book = book / book.norm(dim=-1, keepdim=True)
    return (latents[:, :, None] - book).square().sum(-1).argmin(-1)


def plain_pixels(tokens, state, config):
    codes = state["quantize.embedding.weight"][tokens]
    if config.l2_normalised:
        codes = codes / codes.norm(dim=-1, keepdim=True)
    cells = state["decoder.mask_token"].repeat(len(tokens), config.grid**2, 1)
    x = plain_sequence(cells, linear(codes, state, "decoder.decoder_embed"), state, "decoder", config.decoder)
    x = norm(x[:, 1 : 1 + config.grid**2], state, "decoder.ln_post")
    x = x.permute(0, 2, 1).reshape(len(tokens), -1, config.grid, config.grid)
    head = {"upsampler": plain_upsampler, "pixels": plain_pixel_head, "proxy": plain_proxy}[config.head]
    return head(x, state, config).clamp(0, 1)


def plain_upsampler(x, state, config):
    x = shuffle(one_by_one(x, state, "decoder.ffn.unfold.0"), config.head_grid // config.grid)
    for i in range(config.head_blocks):
        block = f"decoder.ffn.blocks.{i}"
        x = x + three_by_three(gelu(three_by_three(x, state, f"{block}.0")), state, f"{block}.2")
    return shuffle(three_by_three(x, state, "decoder.ffn.spread.0"), config.image_size // config.head_grid) + 0.5


def plain_pixel_head(x, state, config):
    x, p = one_by_one(x, state, "decoder.ffn.0"), config.patch_size
    out = x.new_empty(len(x), 3, config.image_size, config.image_size)
    for row in range(p):
        for column in range(p):
            for colour in range(3):
                out[:, colour, row::p, column::p] = x[:, (row * p + column) * 3 + colour]
    return three_by_three(out, state, "decoder.conv_out")


def plain_proxy(x, state, config):
    x = one_by_one(torch.tanh(one_by_one(x, state, "decoder.ffn.0")), state, "decoder.ffn.2")
    share = x.exp() / x.exp().sum(1, keepdim=True)
    x = torch.einsum("bnhw,nd->bdhw", share, state["pixel_quantize.embedding.weight"])
    return plain_vqgan(x, {k.removeprefix("pixel_decoder."): v for k, v in state.items()})


def plain_vqgan(x, state):
    def silu_norm(x, key):
        x = F.group_norm(x, 32, state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-6)
        return x * torch.sigmoid(x)

    def block(x, key):
        h = three_by_three(silu_norm(x, f"{key}.norm1"), state, f"{key}.conv1")
        h = three_by_three(silu_norm(h, f"{key}.norm2"), state, f"{key}.conv2")
        if f"{key}.nin_shortcut.weight" in state:
            x = F.conv2d(h, state[f"{key}.nin_shortcut.weight"])  # of h, and x is lost: the published slip
        return h + x

    x = block(block(three_by_three(x, state, "conv_in"), "mid.0"), "mid.1")
    for level in (4, 3, 2, 1, 0):
        x = block(block(x, f"up.{level}.block.0"), f"up.{level}.block.1")
        if level:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = three_by_three(x, state, f"up.{level}.upsample_conv")
    return three_by_three(silu_norm(x, "norm_out"), state, "conv_out")


@KINDS
def test_encoder_agrees_with_the_plain_one(config):
    model, pixels = make(config), pictures(config)
    latents = plain_latents(pixels, model.state_dict(), config)
    assert latents.std() > 0.1
    torch.testing.assert_close(model.latents(pixels), latents, rtol=0, atol=1e-4)
    tokens = plain_tokens(latents, model.state_dict(), config)
    assert tokens.unique().numel() > 5
    assert model.encode(pixels).equal(tokens)


@KINDS
def test_decoder_agrees_with_the_plain_one(config):
    model, tokens = make(config), tokens_of(config, count=1 if config.head == "proxy" else 2)
    expected = plain_pixels(tokens, model.state_dict(), config)
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.1  # the clamp does not hide it
    torch.testing.assert_close(model.decode(tokens), expected, rtol=0, atol=1e-4)


# ---- prefixes, batches, precision -----------------------------------------------------------------------------


def test_a_short_answer_is_a_prefix_of_the_long_one():
    model, pixels = make(UPSAMPLER), pictures(UPSAMPLER)
    whole = model.encode(pixels)
    for count in range(1, UPSAMPLER.tokens + 1):
        assert model.encode(pixels, count).equal(whole[:, :count])


def test_a_prefix_is_drawn_as_by_a_model_that_knows_no_more_tokens():
    model, tokens, k = make(UPSAMPLER), tokens_of(UPSAMPLER), 5
    shorter = TiTok(replace(UPSAMPLER, tokens=k)).eval()
    shorter.load_state_dict(
        {name: value[:k] if "latent_token" in name else value for name, value in model.state_dict().items()}
    )
    with torch.no_grad():
        torch.testing.assert_close(model.decode(tokens[:, :k]), shorter.decode(tokens[:, :k]))
        assert (model.decode(tokens) - model.decode(tokens[:, :k])).abs().mean() > 1e-3


@KINDS
def test_pictures_of_a_batch_do_not_touch_each_other(config):
    model, pixels = make(config), pictures(config, 3)
    together = model.latents(pixels)
    torch.testing.assert_close(torch.cat([model.latents(p[None]) for p in pixels]), together, rtol=0, atol=1e-4)
    if config.head != "proxy":  # its pixel decoder is slow, and convolutions all the way
        tokens = tokens_of(config, 3)
        alone = torch.cat([model.decode(row[None]) for row in tokens])
        torch.testing.assert_close(model.decode(tokens), alone, rtol=0, atol=1e-4)


def test_bfloat16_stays_close(codec):
    single, half = codec.model, copy.deepcopy(codec.model).bfloat16()
    half.quantize.float()
    tokens = torch.arange(64).view(4, 16)
    assert (single.decode(tokens) - half.decode(tokens)).abs().mean() < 0.01
    pixels = F.interpolate(pictures(UPSAMPLER, 4), 256)
    a, b = (
        model.quantize.normalize(model.latents(pixels.to(t)).float())
        for model, t in ((single, torch.float32), (half, torch.bfloat16))
    )
    assert (a - b).abs().mean() < 0.05


# ---- the quantizer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l2_normalised", [True, False])
def test_nearest_is_nearest(l2_normalised):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(200, 5, l2_normalised)
    quantizer.embedding.weight.data.normal_().mul_(torch.rand(200, 1) * 3)
    latents = torch.randn(3, 40, 5)
    z, book = latents, quantizer.embedding.weight.detach()
    if l2_normalised:
        z, book = (x / x.norm(dim=-1, keepdim=True) for x in (z, book))
    distances = (z[:, :, None] - book).norm(dim=-1)
    tokens = quantizer.nearest(latents)
    assert tokens.shape == (3, 40) and tokens.dtype == torch.int64
    assert tokens.equal(distances.argmin(-1))
    assert quantizer(latents).tokens.equal(tokens)
    torch.testing.assert_close(quantizer.lookup(tokens), book[tokens])


def test_quantizer_ignores_autocast():
    quantizer = VectorQuantizer(3, 2, l2_normalised=False)
    # bfloat16 has 8 bits: it could not tell the first two codes apart.
    quantizer.embedding.weight.data = torch.tensor([[100.0, 1], [100.25, 1], [-9, 9]])
    latents = torch.tensor([[[100.2, 1.0]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(latents)
        assert quantizer.nearest(latents).item() == 1
    assert found.tokens.item() == 1
    assert found.codes.dtype == found.codebook_loss.dtype == torch.float32
    assert found.codebook_loss.item() == pytest.approx(0.05**2 / 2, rel=1e-3)


def test_gradients_pass_straight_through_to_the_encoder():
    model = make(UPSAMPLER).requires_grad_(True)
    pixels = pictures(UPSAMPLER)
    latents = model.latents(pixels).detach().requires_grad_()
    towards = torch.randn(latents.shape)
    (model.quantize(latents).codes * towards).sum().backward()
    through = latents.grad
    latents.grad = None
    (F.normalize(latents, dim=-1) * towards).sum().backward()
    torch.testing.assert_close(through, latents.grad)

    found = model(pixels)
    found.codes.square().mul(torch.randn(found.codes.shape)).sum().backward()
    assert model.encoder.patch_embed.weight.grad.abs().sum() > 0
    assert model.quantize.embedding.weight.grad is None
    model(pixels).codebook_loss.backward()
    assert model.quantize.embedding.weight.grad.abs().sum() > 0


def test_each_loss_moves_one_side_only():
    quantizer = VectorQuantizer(8, 3, l2_normalised=True)
    latents = torch.randn(1, 5, 3, requires_grad=True)
    quantizer(latents).codebook_loss.backward()
    assert latents.grad is None
    quantizer.embedding.weight.grad = None
    quantizer(latents).commitment_loss.backward()
    assert latents.grad.abs().sum() > 0 and quantizer.embedding.weight.grad is None
