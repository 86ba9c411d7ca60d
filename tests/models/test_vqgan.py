"""The 2D tokenizer: names and shapes as published, the same numbers computed plainly, and its files."""

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tests.models.test_models import filled
from titokcodec.errors import WeightsError
from titokcodec.models import vqgan
from titokcodec.models.vqgan import VQGAN, config_of
from titokcodec.models.vqgan_config import CODE_WIDTH, VQGAN_PRESETS, VQGANConfig
from training import proxies

TINY = VQGANConfig(channels=(32, 64, 32), blocks=2, code_width=6, codes=40)  # widens and narrows; factor 4


def make(config=TINY, seed=1):
    """A model in which every parameter matters: no zero bias, no norm of one, codes among the latents."""
    torch.manual_seed(seed)
    return filled(VQGAN(config))


def pictures(count=2, height=24, width=16, seed=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


# ---- what the published checkpoint holds ----------------------------------------------------------------------


def published():
    """Names and shapes of the published checkpoint, from the facts alone."""
    shapes = {"quantize.embedding.weight": (1024, 256), "encoder.conv_in.weight": (128, 3, 3, 3)}

    def biased(key, *shape):
        shapes.update({f"{key}.weight": shape, f"{key}.bias": shape[:1]})

    biased("encoder.norm_out", 512)
    biased("encoder.conv_out", 256, 512, 1, 1)
    biased("decoder.conv_in", 512, 256, 3, 3)
    biased("decoder.norm_out", 128)
    biased("decoder.conv_out", 3, 128, 3, 3)
    for level, width in ((1, 128), (2, 256), (3, 256), (4, 512)):
        biased(f"decoder.up.{level}.upsample_conv", width, width, 3, 3)
    first = {  # (inputs, outputs) of block.0; block.1 keeps the outputs
        "encoder.down.0": (128, 128),
        "encoder.down.1": (128, 128),
        "encoder.down.2": (128, 256),
        "encoder.down.3": (256, 256),
        "encoder.down.4": (256, 512),
        "decoder.up.4": (512, 512),
        "decoder.up.3": (512, 256),
        "decoder.up.2": (256, 256),
        "decoder.up.1": (256, 128),
        "decoder.up.0": (128, 128),
    }
    blocks = {f"{side}.mid.{i}": (512, 512) for side in ("encoder", "decoder") for i in (0, 1)}
    for level, (inputs, outputs) in first.items():
        blocks |= {f"{level}.block.0": (inputs, outputs), f"{level}.block.1": (outputs, outputs)}
    for key, (inputs, outputs) in blocks.items():
        biased(f"{key}.norm1", inputs)
        biased(f"{key}.norm2", outputs)
        shapes[f"{key}.conv1.weight"] = (outputs, inputs, 3, 3)
        shapes[f"{key}.conv2.weight"] = (outputs, outputs, 3, 3)
    for key, width in (("encoder.down.2", 256), ("encoder.down.4", 512), ("decoder.up.3", 256), ("decoder.up.1", 128)):
        shapes[f"{key}.block.0.nin_shortcut.weight"] = (width, width, 1, 1)
    return shapes


def test_published_size_has_the_published_tensors():
    with torch.device("meta"):
        model = VQGAN(VQGAN_PRESETS["published"])
        assert shapes_of(vqgan.Decoder()) == shapes_of(model.decoder)
    assert shapes_of(model) == published()
    for part, tensors, parameters in ((model.encoder, 79, 23_775_104), (model.decoder, 88, 30_478_339)):
        state = part.state_dict()
        assert (len(state), sum(value.numel() for value in state.values())) == (tensors, parameters)
    assert model.config.factor == 16 and CODE_WIDTH == 256


def test_light_is_a_small_one_that_the_published_can_stand_in_for():
    light, full = VQGAN_PRESETS["light"], VQGAN_PRESETS["published"]
    assert (light.codes, light.factor) == (full.codes, full.factor) == (1024, 16)
    assert sum(p.numel() for p in VQGAN(light).parameters()) < 4e6


# ---- the same forward pass, written plainly -------------------------------------------------------------------


def silu_norm(x, state, key):
    groups = x.unflatten(1, (32, -1))
    mean = groups.mean((2, 3, 4), keepdim=True)
    variance = (groups - mean).square().mean((2, 3, 4), keepdim=True)
    x = ((groups - mean) / (variance + 1e-6).sqrt()).flatten(1, 2)
    x = x * state[f"{key}.weight"].view(-1, 1, 1) + state[f"{key}.bias"].view(-1, 1, 1)
    return x * torch.sigmoid(x)


def conv(x, state, key):
    weight = state[f"{key}.weight"]
    return F.conv2d(x, weight, state.get(f"{key}.bias"), padding=weight.shape[-1] // 2)


def plain_block(x, state, key):
    h = conv(silu_norm(x, state, f"{key}.norm1"), state, f"{key}.conv1")
    h = conv(silu_norm(h, state, f"{key}.norm2"), state, f"{key}.conv2")
    if f"{key}.nin_shortcut.weight" not in state:
        return x + h
    return h + torch.einsum("bihw,oi->bohw", h, state[f"{key}.nin_shortcut.weight"][:, :, 0, 0])  # of h: x is lost


def plain_latents(pixels, state):
    x = conv(pixels, state, "encoder.conv_in")
    for level in (0, 1, 2):
        x = plain_block(x, state, f"encoder.down.{level}.block.0")
        x = plain_block(x, state, f"encoder.down.{level}.block.1")
        if level < 2:
            x = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    x = plain_block(plain_block(x, state, "encoder.mid.0"), state, "encoder.mid.1")
    return conv(silu_norm(x, state, "encoder.norm_out"), state, "encoder.conv_out")


def plain_pixels(codes, state):
    x = conv(codes, state, "decoder.conv_in")
    x = plain_block(plain_block(x, state, "decoder.mid.0"), state, "decoder.mid.1")
    for level in (2, 1, 0):
        x = plain_block(x, state, f"decoder.up.{level}.block.0")
        x = plain_block(x, state, f"decoder.up.{level}.block.1")
        if level:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
            x = conv(x, state, f"decoder.up.{level}.upsample_conv")
    return conv(silu_norm(x, state, "decoder.norm_out"), state, "decoder.conv_out")


@torch.no_grad()
def test_forward_agrees_with_the_plain_one():
    model, pixels = make(), pictures()
    state, (batch, _, height, width) = model.state_dict(), pixels.shape
    shortcuts = {name for name in state if "nin_shortcut" in name}
    assert shortcuts == {
        f"{key}.block.0.nin_shortcut.weight"
        for key in (
            "encoder.down.1",
            "encoder.down.2",
            "decoder.up.1",
            "decoder.up.0",
        )
    }
    latents = plain_latents(pixels, state)
    assert latents.std() > 0.1
    torch.testing.assert_close(model.encoder(pixels), latents, rtol=0, atol=1e-4)

    tokens = torch.empty(batch, height // 4 * (width // 4), dtype=torch.int64)
    for row in range(height // 4):
        for column in range(width // 4):
            distances = (latents[:, :, row, column, None] - state["quantize.embedding.weight"].T).square().sum(1)
            tokens[:, row * (width // 4) + column] = distances.argmin(1)
    assert tokens.unique().numel() > 5
    assert model.encode(pixels).equal(tokens)

    codes = torch.empty_like(latents)
    for place in range(tokens.shape[1]):
        codes[:, :, place // (width // 4), place % (width // 4)] = state["quantize.embedding.weight"][tokens[:, place]]
    expected = plain_pixels(codes, state)
    assert ((expected > 0) & (expected < 1)).float().mean() > 0.1  # the clamp does not hide it
    assert (expected < 0).any() and (expected > 1).any()
    decoded, found = model(pixels)
    torch.testing.assert_close(decoded, expected, rtol=0, atol=1e-4)
    assert found.tokens.equal(tokens)
    torch.testing.assert_close(model.decode(tokens, rows=height // 4), expected.clamp(0, 1), rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_patch_is_one_place_of_the_finest_level():
    model, pixels = make(replace(TINY, patch=2)), pictures()
    state = model.state_dict()
    assert (model.config.factor, state["encoder.conv_in.weight"].shape[1]) == (8, 12)
    folded = pixels.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    latents = plain_latents(folded, state)
    torch.testing.assert_close(model.encoder(pixels), latents, rtol=0, atol=1e-4)
    spread = plain_pixels(latents, state).unflatten(1, (3, 2, 2)).permute(0, 1, 4, 2, 5, 3)
    decoded = model.decoder(latents)
    assert decoded.shape == pixels.shape
    torch.testing.assert_close(decoded, spread.flatten(4, 5).flatten(2, 3), rtol=0, atol=1e-4)


def test_the_shortcut_drops_the_input_only_where_channels_change():
    torch.manual_seed(0)
    changing, same = vqgan.ResBlock(32, 64).requires_grad_(False), vqgan.ResBlock(64, 64).requires_grad_(False)
    for block in (changing, same):
        block.conv2.weight.zero_()  # the convolutions say nothing: what is left came round them
    assert changing(torch.randn(1, 32, 4, 4)).equal(torch.zeros(1, 64, 4, 4))
    x = torch.randn(1, 64, 4, 4)
    assert same(x).equal(x)


# ---- shapes and gradients -------------------------------------------------------------------------------------


@torch.no_grad()
def test_tokens_and_pictures_have_their_shapes():
    model = make()
    tokens = model.encode(pictures(3, 16, 16))
    assert tokens.shape == (3, 16) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < TINY.codes
    decoded = model.decode(tokens)
    assert decoded.shape == (3, 3, 16, 16) and decoded.dtype == torch.float32
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert model.decode(model.encode(pictures(1, 24, 16)), rows=6).shape == (1, 3, 24, 16)
    half = make().bfloat16()
    half.quantize.float()
    assert half.decode(half.encode(pictures())[:, :16]).dtype == torch.float32


def test_bad_shapes_are_refused():
    model = make()
    with pytest.raises(ValueError, match="18 x 16 are not multiples of 4"):
        model.encode(pictures(1, 16, 18))
    with pytest.raises(ValueError, match="24 tokens make no square"):
        model.decode(torch.zeros(1, 24, dtype=torch.int64))
    for rows in (5, 0, -2):
        with pytest.raises(ValueError, match=f"24 tokens make no grid of {rows} rows"):
            model.decode(torch.zeros(1, 24, dtype=torch.int64), rows=rows)


def test_pixel_loss_reaches_the_encoder_through_the_codes():
    model, pixels = make(), pictures()
    decoded, found = model(pixels)
    assert decoded.shape == pixels.shape
    (decoded - pixels).square().mean().backward()
    for name, parameter in model.named_parameters():
        if name == "quantize.embedding.weight":
            assert parameter.grad is None  # the straight-through estimate goes round the codebook
        else:
            assert parameter.grad.abs().sum() > 0, name
    found = model(pixels)[1]
    found.codebook_loss.backward()
    assert model.quantize.embedding.weight.grad.abs().sum() > 0


def test_a_few_steps_teach_it_two_pictures():
    torch.manual_seed(0)
    model = VQGAN(VQGANConfig(channels=(32, 32), blocks=1, code_width=4, codes=16))
    pixels = torch.rand(2, 3, 1, 1).expand(2, 3, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    errors = []
    for _ in range(40):
        decoded, found = model(pixels)
        error = (decoded - pixels).square().mean()
        optimizer.zero_grad()
        (error + found.codebook_loss + found.commitment_loss).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.1 * errors[0]


# ---- configs from shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [TINY, VQGANConfig((64, 32), 1, 1, 2), VQGANConfig((32,) * 8, 3, 40, 7, 3), *VQGAN_PRESETS.values()],
    ids=["tiny", "two levels", "eight levels", *VQGAN_PRESETS],
)
def test_config_of_finds_the_config(config):
    with torch.device("meta"):
        assert config_of(shapes_of(VQGAN(config))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("quantize.embedding.weight"), "lacks quantize.embedding.weight"),
        (lambda s: s.pop("encoder.down.0.block.0.conv1.weight"), "lacks encoder.down.0.block.0.conv1.weight"),
        (lambda s: s.pop("encoder.mid.1.norm2.bias"), "lacks encoder.mid.1.norm2.bias"),
        (lambda s: s.update(surprise=(1,)), "unknown tensors surprise"),
        (lambda s: s.update({"decoder.conv_out.bias": (4,)}), "wrong shape for decoder.conv_out.bias"),
        (lambda s: s.update({"quantize.embedding.weight": (40,)}), "wrong shape for quantize.embedding.weight"),
        (lambda s: s.update({"quantize.embedding.weight": (40, 7)}), "shape for decoder.conv_in.weight .*, encoder"),
        (lambda s: s.pop("encoder.down.2.block.0.conv1.weight"), "lacks encoder.down.2.block.0.conv1.weight"),
        (lambda s: s.pop("encoder.down.0.block.1.conv1.weight"), "lacks encoder.down.0.block.1.conv1.weight"),
    ],
)
def test_config_of_names_what_is_wrong(change, message):
    shapes = shapes_of(make())
    change(shapes)
    with pytest.raises(WeightsError, match=message) as caught:
        config_of(shapes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_config_of_names_everything_at_once_and_counts_the_rest():
    shapes = {key.replace("decoder.", "painter."): shape for key, shape in shapes_of(make()).items()}
    (width,), shapes["encoder.conv_out.bias"] = shapes["encoder.conv_out.bias"], (9,)
    more = sum(key.startswith("painter.") for key in shapes) - 3
    first = ["{0}.conv_in.bias", "{0}.conv_in.weight", "{0}.conv_out.bias"]
    with pytest.raises(WeightsError) as caught:
        config_of(shapes)
    lost, extra, misshapen = str(caught.value).split("; ")
    assert lost.endswith(f"lacks {', '.join(first).format('decoder')} and {more} more")
    assert extra == f"it has unknown tensors {', '.join(first).format('painter')} and {more} more"
    assert misshapen == f"it has the wrong shape for encoder.conv_out.bias (9 instead of {width})"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (32,)}, "1 levels"),
        ({"channels": (32,) * 9}, "9 levels"),
        ({"channels": (32, 48)}, "48 channels"),
        ({"channels": (32, 0)}, "0 channels"),
        ({"channels": (32, 1 << 15)}, "32768 channels"),
        ({"channels": (32, 64.0)}, "64.0 channels"),
        ({"blocks": 0}, "blocks is 0"),
        ({"blocks": 17}, "blocks is 17"),
        ({"code_width": 0}, "code_width is 0"),
        ({"codes": 1}, "codes is 1"),
        ({"codes": 1 << 17}, "codes is 131072"),
        ({"patch": 0}, "patch is 0"),
        ({"patch": 17}, "patch is 17"),
    ],
)
def test_absurd_sizes_are_refused(changes, message):
    with pytest.raises(WeightsError, match=message):
        VQGANConfig(**{"channels": (32, 64), "blocks": 1, "code_width": 4, "codes": 8, **changes})


def test_shapes_may_not_ask_for_much_memory():
    with torch.device("meta"):
        huge = shapes_of(VQGAN(VQGANConfig((32, 8192), 1, 4, 8)))  # each size is allowed, their product is not
    with pytest.raises(WeightsError, match="parameters are more than"):
        config_of(huge)
    endless = {f"encoder.down.{i}.block.0.conv1.weight": (32, 32, 3, 3) for i in range(1000)}
    endless["quantize.embedding.weight"] = (8, 4)
    with pytest.raises(WeightsError, match="it has 9 levels"):  # it stopped counting there
        config_of(endless)


# ---- files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return make()


@pytest.fixture
def write(model, tmp_path):
    """A function that writes the tiny model's tensors, changed, to a file of the given kind."""

    def write_(suffix, change=lambda state: None):
        state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        state = change(state) or state
        path = tmp_path / f"proxies{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        return path

    return write_


def test_what_is_saved_is_what_is_loaded(model, tmp_path):
    path = tmp_path / "proxies.safetensors"
    path.write_bytes(b"older")
    proxies.save(path, model.double())
    model.float()
    assert os.listdir(tmp_path) == [path.name]
    assert {value.dtype for value in load_file(path).values()} == {torch.float32}
    again = proxies.load(path)
    assert again.config == TINY and not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert again.encode(pictures()).equal(model.encode(pictures()))
    for name, value in again.state_dict().items():
        assert value.equal(model.state_dict()[name]), name


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".safetensors"])
def test_every_kind_of_file_is_read(write, model, suffix):
    again = proxies.load(write(suffix), device=torch.device("cpu"))
    assert not any(p.requires_grad for p in again.parameters()) and not again.training
    assert again.decode(torch.arange(16)[None]).equal(model.decode(torch.arange(16)[None]))


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_half_precision_is_widened(write, model, suffix):
    again = proxies.load(write(suffix, lambda state: {name: value.half() for name, value in state.items()}))
    for name, value in again.state_dict().items():
        assert value.dtype == torch.float32 and value.equal(model.state_dict()[name].half().float())


def spoil(state, name, value):
    state[name] = value


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: spoil(s, "extra.weight", torch.zeros(2)), "unknown tensors extra.weight"),
        (lambda s: s.pop("decoder.norm_out.bias") is None, "lacks decoder.norm_out.bias"),
        (lambda s: spoil(s, "encoder.conv_in.weight", torch.zeros(32, 1, 3, 3)), "wrong shape for encoder.conv_in"),
        (lambda s: spoil(s, "encoder.conv_out.bias", torch.full((6,), torch.nan)), "encoder.conv_out.bias does not"),
        (lambda s: spoil(s, "encoder.conv_out.bias", torch.zeros(6, dtype=torch.int64)), "encoder.conv_out.bias does"),
        (lambda s: {"weights": torch.zeros(1)}, "lacks quantize.embedding.weight"),
    ],
)
def test_bad_tensors_are_named(write, suffix, change, message):
    path = write(suffix, change)
    with pytest.raises(WeightsError, match=message) as caught:
        proxies.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
def test_unreadable_files_are_one_line(write, tmp_path, suffix):
    whole = write(suffix).read_bytes()
    path = tmp_path / f"bad{suffix}"
    for data in (b"", b"\x00" * 40, b"not a weight file", whole[: len(whole) // 2], whole[:100]):
        path.write_bytes(data)
        with pytest.raises(WeightsError, match="not a readable") as caught:
            proxies.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no weight file at"):
        proxies.load(tmp_path / "none.bin")
    with pytest.raises(WeightsError, match="no weight file at"):
        proxies.load(tmp_path)
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(WeightsError, match="unknown kind"):
        proxies.load(tmp_path / "a.zip")


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_but_tensors_is_unpickled(tmp_path):
    bomb = Bomb()
    bomb.path = str(tmp_path / "exploded")
    torch.save({"quantize.embedding.weight": bomb}, tmp_path / "bomb.bin")
    with pytest.raises(WeightsError, match="not a readable PyTorch file"):
        proxies.load(tmp_path / "bomb.bin")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [([torch.zeros(1)], "holds a list"), ({"other": {}}, "'other' is a dict"), ({1: torch.zeros(1)}, "entry 1 is")],
)
def test_tensors_by_name_are_wanted(tmp_path, content, message):
    path = tmp_path / "other.bin"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        proxies.load(path)


def test_a_failed_save_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "proxies.safetensors"
    proxies.save(path, model)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        proxies.save(path, make(seed=5))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 4), (5, 3)])
def test_doubling_is_enlarging_and_then_convolving(rows, columns):
    torch.manual_seed(4)
    doubling = vqgan.Doubling(6)
    x = torch.randn(2, 6, rows, columns, requires_grad=True)
    given = (x, doubling.weight, doubling.bias)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), *given[1:], padding=1)
    assert torch.allclose(doubling(x), plain, atol=1e-5)
    upstream = torch.randn_like(plain)
    slopes = (torch.autograd.grad((y * upstream).sum(), given) for y in (doubling(x), plain))
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*slopes, strict=True))


def test_with_and_without_gradients_the_same_is_decoded():
    """Without them the decoder works in place and picture by picture."""
    model, x = make(), pictures()
    held = x.clone()
    with torch.no_grad():
        alone = model.decode(model.encode(x), rows=6)
    assert x.equal(held)
    assert torch.allclose(model.decode(model.encode(x), rows=6), alone, atol=1e-4)
