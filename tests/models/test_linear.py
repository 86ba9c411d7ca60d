"""Linear paths: exact transforms, and codes that are nearest by what they are worth in the picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.numpy import load_file, save_file

from titokcodec import Codec
from titokcodec.errors import WeightsError
from titokcodec.models.config import LATER, PRESETS, TiTokConfig, Tower
from titokcodec.models.linear import LOW, Spectrum, _transforms
from titokcodec.models.quantizer import VectorQuantizer
from titokcodec.models.tokenizer import TiTok
from titokcodec.search import _distortion, search
from titokcodec.weights import tokenizers
from titokcodec.weights.storage import open_file
from training.codebook import CodebookRestart
from training.starts import start_in_2d, start_linear

CONFIG = TiTokConfig(
    Tower(32, 1, 2),
    Tower(32, 1, 2),
    tokens=16,
    codes=64,
    code_width=4,
    patch_size=32,
    pool=2,
    nested=True,
    min_tokens=4,
    l2_normalised=False,
    head="refiner",
    head_width=16,
    head_blocks=1,
    spectrum=48,
    codebooks=2,
    components=48,
)


def fields(count, side=64, seed=0):
    """(count, 3, side, side): random pictures, smooth as photographs are, and mostly grey."""
    random = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, 64, 64)
    for cells in (1, 2, 4, 8, 16, 32):
        noise = torch.randn(count, 1, cells, cells, generator=random)
        noise = noise + 0.3 * torch.randn(count, 3, cells, cells, generator=random)
        total += F.interpolate(noise, size=64, mode="bilinear") / (2 + cells)
    pictures = (0.45 + 0.35 * total).clamp(0, 1)
    return pictures if side == 64 else F.interpolate(pictures, size=side, mode="nearest")


def started(config=CONFIG, count=1500, seed=0):
    """An untrained model whose linear paths are set from random pictures."""
    torch.manual_seed(seed)
    model = TiTok(config)
    start_linear(model, fields(count).split(256), report=lambda line: None)
    return model.eval().requires_grad_(False)


@torch.no_grad()
def psnr(model, pictures, tokens):
    """Of all pictures together."""
    decoded = model.decode(model.encode(pictures, tokens))
    return -10 * (decoded - pictures).square().mean().log10().item()


@pytest.fixture(scope="module")
def model():
    return started()


# ---- transforms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 48, 896, 3 * LOW * LOW])
def test_transforms_are_orthonormal_and_begin_with_the_mean(count):
    colour, cosine, chosen = _transforms(count)
    np.testing.assert_allclose(colour @ colour.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(cosine @ cosine.T, np.eye(LOW), atol=1e-5)
    assert len(set(chosen.tolist())) == count and chosen[0] == 0


def test_squares_of_coefficients_add_up_to_those_of_pixels():
    pictures = fields(4)
    kept = Spectrum(3 * LOW * LOW)
    decoded = kept.picture(kept(pictures))
    energy = kept.coefficients(pictures).square().sum(1)
    torch.testing.assert_close(energy, (decoded - 0.5).square().sum((1, 2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 48, 896])
def test_what_is_decoded_is_the_nearest_picture_that_the_frequencies_can_make(count):
    spectrum, pictures = Spectrum(count), fields(3)
    spectrum.mean.normal_()
    spectrum.deviation.uniform_(0.5, 2)
    decoded = spectrum.picture(spectrum(pictures))
    torch.testing.assert_close(spectrum.picture(spectrum(decoded)), decoded, rtol=1e-4, atol=1e-5)
    rest = spectrum.coefficients(pictures - decoded + 0.5)
    assert rest.abs().max() < 1e-4, "what is left over has none of them"


def test_more_frequencies_give_nearer_pictures():
    pictures = fields(20)
    errors = []
    for count in (1, 10, 100, 1000, 3072):
        spectrum = Spectrum(count)
        errors.append((spectrum.picture(spectrum(pictures)) - pictures).square().mean().item())
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[1] / 10


def test_a_mirrored_picture_has_its_odd_columns_negated():
    spectrum, pictures = Spectrum(300), fields(3)
    sign = 1 - 2 * (spectrum.chosen % LOW % 2)
    torch.testing.assert_close(
        spectrum.coefficients(pictures.flip(3)), spectrum.coefficients(pictures) * sign, rtol=1e-4, atol=1e-4
    )


def test_only_averages_over_the_64th_parts_of_a_side_count():
    spectrum, small = Spectrum(200), fields(2)
    large = fields(2, 256)
    detail = torch.tensor([[1.0, -1], [-1, 1]]).repeat(128, 128) * 0.1
    for pictures in (large, large + detail):
        torch.testing.assert_close(spectrum.coefficients(pictures), spectrum.coefficients(small), rtol=1e-4, atol=1e-4)


def test_linear_paths_ignore_autocast(model):
    pictures = fields(2, 256)
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.encoder.linear(pictures)
        assert latents.dtype == model.decoder.linear(latents.bfloat16()).dtype == torch.float32
    assert latents.equal(model.encoder.linear(pictures))


def test_missing_tokens_count_as_zero(model):
    codes = model.quantize.lookup(model.encode(fields(2, 256)))
    padded = F.pad(codes[:, :5], (0, 0, 0, 11))
    torch.testing.assert_close(model.decoder.linear(codes[:, :5]), model.decoder.linear(padded))


# ---- codes that differ in what they are worth -----------------------------------------------------------------

BOOKS, CODES, WIDTH, POSITIONS = 3, 20, 4, 12


@pytest.fixture
def quantizer():
    torch.manual_seed(0)
    made = VectorQuantizer(CODES, WIDTH, l2_normalised=False, codebooks=BOOKS, positions=POSITIONS)
    made.embedding.weight.data.normal_()
    made.importance.uniform_(0.01, 2)
    made.importance[3, 2:] = 0
    made.importance[7, 1] = 0
    return made


def by_force(quantizer, latents, first=0):
    """Every latent against every code of its book, one by one."""
    found = torch.empty(latents.shape[:2], dtype=torch.long)
    for b, row in enumerate(latents):
        for k, latent in enumerate(row):
            book = (first + k) // (POSITIONS // BOOKS)
            codes = quantizer.embedding.weight[book * CODES : (book + 1) * CODES]
            found[b, k] = ((latent - codes) * quantizer.importance[first + k]).square().sum(1).argmin()
    return found


@pytest.mark.parametrize(("first", "count"), [(0, 12), (0, 1), (0, 6), (3, 2), (4, 4), (5, 7), (11, 1)])
def test_nearest_is_nearest_by_worth_in_each_positions_own_book(quantizer, first, count):
    latents = torch.randn(3, count, WIDTH)
    assert quantizer.nearest(latents, first).equal(by_force(quantizer, latents, first))


def test_every_prefix_of_tokens_is_looked_up_in_its_books(quantizer):
    tokens = torch.randint(CODES, (2, POSITIONS))
    whole = quantizer.lookup(tokens)
    for k in range(POSITIONS):
        assert quantizer.lookup(tokens[:, : k + 1]).equal(whole[:, : k + 1])
        row = quantizer.embedding.weight[k // 4 * CODES + tokens[:, k]]
        assert whole[:, k].equal(row * (quantizer.importance[k] > 0))


def test_entries_that_are_worth_nothing_are_0_and_change_nothing(quantizer):
    latents = torch.randn(2, POSITIONS, WIDTH)
    found = quantizer(latents)
    assert not found.codes[:, 3, 2:].any() and not found.codes[:, 7, 1].any()
    latents[:, 3, 2:] += 100
    assert quantizer(latents).tokens.equal(found.tokens)
    assert quantizer(latents).commitment_loss == found.commitment_loss


def test_losses_are_errors_of_pixels_and_gradients_reach_both_sides(quantizer):
    latents = torch.randn(2, POSITIONS, WIDTH, requires_grad=True)
    found = quantizer(latents)
    expected = ((found.codes - latents) * quantizer.importance).square().sum((1, 2)).mean()
    assert found.codebook_loss.item() == pytest.approx(expected.item(), rel=1e-5)
    towards = torch.randn(found.codes.shape)
    (found.codes * towards).sum().backward()
    torch.testing.assert_close(latents.grad, towards * (quantizer.importance > 0))
    assert quantizer.embedding.weight.grad[quantizer.rows(found.tokens).unique()].any(1).all()


def test_without_importance_gradients_pass_the_codes_by():
    torch.manual_seed(0)
    plain = VectorQuantizer(CODES, WIDTH, l2_normalised=False)
    assert plain.importance is None and list(plain.state_dict()) == ["embedding.weight"]
    plain(torch.randn(2, 5, WIDTH, requires_grad=True)).codes.sum().backward()
    assert plain.embedding.weight.grad is None


def test_importance_of_one_finds_the_codes_of_a_plain_quantizer():
    torch.manual_seed(0)
    plain, weighted = VectorQuantizer(50, 4, False), VectorQuantizer(50, 4, False, positions=9)
    weighted.embedding.load_state_dict(plain.embedding.state_dict())
    latents = torch.randn(4, 9, 4) / 50
    assert weighted.nearest(latents).equal(plain.nearest(latents))


def test_idle_codes_start_again_from_positions_that_their_book_serves(quantizer):
    restarts = CodebookRestart(quantizer, patience=1)
    latents = torch.arange(12.0)[None, :, None].expand(5, -1, WIDTH) * 1000
    tokens = torch.zeros(5, POSITIONS, dtype=torch.long)
    assert restarts.step(tokens, latents).item() == 0
    kept = quantizer.embedding.weight[::CODES].clone()
    assert restarts.step(tokens, latents).item() == BOOKS * (CODES - 1)
    books = quantizer.embedding.weight.detach().view(BOOKS, CODES, WIDTH)
    assert books[:, 0].equal(kept), "these are in use"
    served = (books[:, 1:] / 1000).round()
    assert [(book.min().item(), book.max().item()) for book in served] == [(0, 3), (4, 7), (8, 11)]


# ---- codebooks that make up for what those before got wrong ---------------------------------------------------

COMPONENTS = 20


@pytest.fixture
def residual(quantizer):
    """The same with every codebook's entries telling of 16 out of 20 components."""
    made = VectorQuantizer(CODES, WIDTH, False, codebooks=BOOKS, positions=POSITIONS, components=COMPONENTS)
    made.embedding.load_state_dict(quantizer.embedding.state_dict())
    made.importance.copy_(quantizer.importance)
    made.component.copy_(torch.cat([torch.randperm(COMPONENTS)[: POSITIONS * WIDTH // BOOKS] for _ in range(BOOKS)]))
    return made


def residual_by_force(quantizer, latents):
    """Tokens and latents as compared of one picture, entry by entry."""
    component = quantizer.component.view(POSITIONS, WIDTH).tolist()
    wrong, tokens, compared = [0.0] * COMPONENTS, [], []
    for k, latent in enumerate(latents):
        if k % (POSITIONS // BOOKS) == 0:
            before = list(wrong)  # codes of one codebook do not make up for each other's errors
        importance = quantizer.importance[k]
        wanted = torch.stack(
            [
                value - before[c] / worth if worth > 0 else value
                for value, c, worth in zip(latent, component[k], importance, strict=True)
            ]
        )
        book = k // (POSITIONS // BOOKS)
        codes = quantizer.embedding.weight[book * CODES : (book + 1) * CODES]
        tokens.append(((wanted - codes) * importance).square().sum(1).argmin().item())
        compared.append(wanted)
        for c, value, code, worth in zip(component[k], latent, codes[tokens[-1]], importance, strict=True):
            wrong[c] += ((code - value) * worth).item()
    return tokens, torch.stack(compared)


def test_each_codebook_looks_for_what_those_before_got_wrong(residual, quantizer):
    latents = torch.randn(5, POSITIONS, WIDTH)
    found = residual(latents)
    for row, tokens, compared in zip(latents, found.tokens, found.latents, strict=True):
        expected = residual_by_force(residual, row)
        assert tokens.tolist() == expected[0]
        torch.testing.assert_close(compared, expected[1], rtol=1e-4, atol=1e-3)
    assert residual.nearest(latents).equal(found.tokens)
    alone = quantizer.nearest(latents)
    assert found.tokens[:, :4].equal(alone[:, :4]) and not found.tokens[:, 4:].equal(alone[:, 4:])


def test_prefixes_of_latents_have_prefixes_of_tokens_with_components_too(residual):
    latents = torch.randn(3, POSITIONS, WIDTH)
    whole = residual.nearest(latents)
    for k in range(1, POSITIONS + 1):
        assert residual.nearest(latents[:, :k]).equal(whole[:, :k])


def test_codes_of_a_component_add_up_to_its_latents_but_for_the_last_error(residual):
    latents = torch.randn(4, POSITIONS, WIDTH)
    found = residual(latents)
    worth = residual.importance.flatten()
    off = ((found.codes - latents).flatten(1) * worth).T
    last = ((found.codes - found.latents).flatten(1) * worth).T
    several = 0
    for c in range(COMPONENTS):
        telling = ((residual.component == c) & (worth > 0)).nonzero().flatten()
        if len(telling):
            torch.testing.assert_close(off[telling].sum(0), last[telling[-1]], rtol=1e-4, atol=1e-4)
        several += len(telling) > 1
    assert several > 10


def test_gradients_pass_straight_through_to_entries_that_exist(residual, quantizer):
    for each in (quantizer, residual):
        latents = torch.randn(2, POSITIONS, WIDTH, requires_grad=True)
        found = each(latents)
        torch.testing.assert_close(found.codes, each.lookup(found.tokens))
        gradient = torch.autograd.grad(found.codes.sum(), latents)[0]
        assert gradient.equal((each.importance > 0).float().expand(2, -1, -1))


def test_losses_are_of_latents_as_they_were_compared(residual):
    latents = torch.randn(2, POSITIONS, WIDTH, requires_grad=True)
    found = residual(latents)
    error = (found.latents - found.codes.detach()) * residual.importance.square()
    expected = (error * (found.latents - found.codes.detach())).sum((1, 2)).mean().item()
    assert found.codebook_loss.item() == found.commitment_loss.item() == pytest.approx(expected, rel=1e-5)
    gradient = torch.autograd.grad(found.commitment_loss, latents)[0]
    torch.testing.assert_close(gradient, error, rtol=1e-4, atol=1e-5)  # 2 / the 2 pictures


# ---- the whole model ------------------------------------------------------------------------------------------


def test_a_short_answer_is_a_prefix_and_later_tokens_do_not_matter(model):
    pictures = fields(3, 256)
    whole = model.encode(pictures)
    assert whole.shape == (3, 16) and whole.max() < 64
    for count in (4, 9, 15):
        assert model.encode(pictures, count).equal(whole[:, :count])


def test_pictures_of_a_batch_do_not_touch_each_other(model):
    tokens = model.encode(fields(3, 256))
    torch.testing.assert_close(model.decode(tokens)[1:2], model.decode(tokens[1:2]), rtol=1e-4, atol=1e-5)


def test_a_new_model_trains_everywhere():
    """The transformers are silent at first, and one step of what they say last lets gradients through to the rest."""
    model = started().train().requires_grad_(True)
    for _ in range(2):
        found = model(fields(2, 256))
        loss = (model.decode_codes(found.codes) - fields(2, 256, seed=1)).square().mean() + found.codebook_loss
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for value in model.parameters():
                if value.grad is not None:
                    value -= 0.1 * value.grad.sign() * 0.01
    silent = {name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()}
    assert not silent


@pytest.mark.parametrize("int8", [True, False], ids=["int8", "fp16"])
def test_a_weight_file_keeps_tokens_and_pictures(model, tmp_path, int8):
    opened = tokenizers.save(tmp_path / "m.safetensors", model, "linear", int8=int8)
    again = tokenizers.build(opened)
    assert opened.config == CONFIG and tokenizers.read(opened.path).fingerprint == opened.fingerprint
    assert list(again.state_dict()) == list(model.state_dict())
    assert tokenizers.save(tmp_path / "again.safetensors", again, "linear", int8=int8).fingerprint == opened.fingerprint
    pictures = fields(8, 256, seed=5)
    same = (again.encode(pictures) == model.encode(pictures)).float().mean()
    assert same > (0.9 if int8 else 0.97)
    assert abs(psnr(again, pictures, 16) - psnr(model, pictures, 16)) < 0.1


def test_a_file_is_written_and_read_with_such_a_model(model, tmp_path):
    opened = tokenizers.save(tmp_path / "m.safetensors", model, "linear")
    picture = Image.fromarray((fields(1, 256, seed=7)[0].permute(1, 2, 0) * 255).byte().numpy())
    for dtype in ("fp32", "bf16"):
        codec = Codec.from_pretrained(opened.path, device="cpu", dtype=dtype)
        assert {part.dtype for part in codec.model.encoder.linear.parameters()} == {torch.float32}
        sizes = []
        for tokens in (4, 16):
            data = codec.compress(picture, tokens=tokens)
            decoded = codec.decompress(data)
            assert decoded.size == (256, 256) and codec.read(data).shape == (1, tokens)
            far = np.asarray(decoded, float) - np.asarray(picture, float)
            sizes.append((len(data), np.square(far).mean()))
        assert sizes[0][0] < sizes[1][0] and sizes[0][1] > sizes[1][1]


def distortions(model, tokens, pictures):
    """(lengths, B) by what the search makes small."""
    return torch.stack([_distortion(model.decode(tokens[:, :length]), pictures) for length in (4, 8, 16)])


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_search_makes_no_picture_worse_and_keeps_prefixes(model, steps):
    pictures = fields(3, 256, seed=3)
    found = search(model, pictures, 16, steps)
    with torch.no_grad():
        own, better = (distortions(model, t, pictures).mean(0) for t in (model.encode(pictures), found))
    assert (better <= own).all() and (better < own).any()
    assert search(model, pictures, 7, steps).equal(found[:, :7])


def test_a_model_without_components_is_as_before_them():
    """Released files have no tensors of components, and two matrices from frequencies to entries and back."""
    model, config = TiTok(replace(CONFIG, components=0)).eval(), replace(CONFIG, components=0)
    assert not {name for name in model.state_dict() if "component" in name or "gain" in name}
    assert "components" not in json.loads(config.to_json()) and TiTokConfig.from_json(config.to_json()) == config
    with torch.no_grad():
        for path, shape in ((model.encoder.linear, (64, 48)), (model.decoder.linear, (48, 64))):
            assert path.weight.shape == shape
            path.weight.normal_()
        pictures, codes = fields(2, 256), torch.randn(2, 9, 4)
        whitened = model.encoder.linear.spectrum(pictures)
        torch.testing.assert_close(
            model.encoder.linear(pictures).flatten(1), whitened @ model.encoder.linear.weight.T, rtol=1e-4, atol=1e-4
        )
        weight = model.decoder.linear.weight[:, :36]
        expected = model.decoder.linear.spectrum.picture(codes.flatten(1) @ weight.T)
        torch.testing.assert_close(model.decoder.linear(codes), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_components_that_one_entry_each_explains_are_rows_of_a_matrix():
    few = started(replace(CONFIG, codebooks=1))
    assert len(few.quantize.component[few.quantize.importance.flatten() > 0].unique()) > 30
    dense = TiTok(replace(CONFIG, codebooks=1, components=0)).eval()
    state = {name: value for name, value in few.state_dict().items() if name in dense.state_dict()}
    for name, along in (("encoder.linear", 0), ("decoder.linear", 1)):
        path = few.get_submodule(name)
        rows = path.weight.index_select(along, path.component)
        state[f"{name}.weight"] = rows * path.gain.unsqueeze(1 - along)
    dense.load_state_dict(state)
    pictures = fields(8, 256, seed=5)
    tokens = dense.encode(pictures)
    assert (tokens == few.encode(pictures)).float().mean() > 0.99
    torch.testing.assert_close(dense.decode(tokens[:, :7]), few.decode(tokens[:, :7]), rtol=1e-4, atol=1e-4)


COMPONENT = ("encoder.linear.component", "decoder.linear.component", "quantize.component")


@pytest.mark.parametrize("int8", [True, False], ids=["int8", "fp16"])
def test_files_and_precisions_keep_every_component_exactly(tmp_path, int8):
    """As many as a model may have: bfloat16 would have every eighth of the last of them."""
    torch.manual_seed(0)
    model = TiTok(replace(CONFIG, tokens=128, code_width=16, spectrum=2048, components=2048)).eval()
    for name in COMPONENT:
        model.get_buffer(name).copy_(torch.randperm(2048))
    opened = tokenizers.save(tmp_path / "m.safetensors", model, "linear", int8=int8)
    for dtype in ("fp32", "bf16"):
        codec = Codec.from_pretrained(opened.path, device="cpu", dtype=dtype)
        for name in COMPONENT:
            again = codec.model.get_buffer(name)
            assert again.dtype == torch.int64 and again.equal(model.get_buffer(name)), name


@pytest.mark.parametrize("number", [1e4, -3, 0.5, 48, 65504])
def test_components_that_a_file_makes_up_do_no_harm(model, tmp_path, number):
    opened = tokenizers.save(tmp_path / "m.safetensors", model, "linear")
    arrays = load_file(opened.path)
    for name in COMPONENT:
        arrays[name][::3] = number
    with open_file(opened.path) as file:
        save_file(arrays, tmp_path / "bad.safetensors", file.metadata())
    codec = Codec.from_pretrained(tmp_path / "bad.safetensors", device="cpu", dtype="fp32")
    pixels = fields(2, 256)
    for tokens in (codec.encode(pixels), codec.encode(pixels, 5), codec.encode(pixels, effort=1)):
        assert tokens.min() >= 0 and tokens.max() < 64
        assert codec.decode(tokens).isfinite().all()


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_components_that_are_no_numbers_are_refused(model, tmp_path, number):
    opened = tokenizers.save(tmp_path / "m.safetensors", model, "linear")
    arrays = load_file(opened.path)
    arrays["quantize.component"][7] = number
    with open_file(opened.path) as file:
        save_file(arrays, tmp_path / "bad.safetensors", file.metadata())
    with pytest.raises(WeightsError, match=r"quantize\.component does not hold finite"):
        tokenizers.load_model(tmp_path / "bad.safetensors")


# ---- configurations -------------------------------------------------------------------------------------------


def test_files_from_before_linear_paths_load_and_stay_as_they_were():
    text = PRESETS["default_2"].to_json()
    assert not set(LATER) & set(json.loads(text))
    assert TiTokConfig.from_json(text) == PRESETS["default_2"]
    read = TiTokConfig.from_json(text)
    assert (read.spectrum, read.codebooks, read.components) == (0, 1, 0)
    assert {"spectrum": 48, "codebooks": 2, "components": 48}.items() <= json.loads(CONFIG.to_json()).items()
    assert TiTokConfig.from_json(CONFIG.to_json()) == CONFIG


@pytest.mark.parametrize(
    "changes",
    [
        {"spectrum": 3 * LOW * LOW + 1},
        {"spectrum": 0},
        {"spectrum": -1},
        {"spectrum": True},
        {"spectrum": "48"},
        {"codebooks": 3},  # of 16 tokens
        {"codebooks": 0},
        {"codebooks": 32},
        {"codebooks": 2.0},
        {"l2_normalised": True},
        {"legacy": True},
        {"head": "upsampler"},
        {"head": "pixels"},
        {"head": "refiner", "spectrum": 0, "codebooks": 1},
        {"head_grid": 48},
        {"head_grid": 128},
        {"head_grid": 4},
        {"image_size": 32},
        {"image_size": 192},  # no grid of noise is as fine
        {"image_size": 512, "patch_size": 64},
        {"image_size": 1 << 14, "patch_size": 1 << 11, "pool": 1 << 5},
        {"image_size": 260, "patch_size": 65, "pool": 1},
        {"patch_size": 2, "pool": 1},  # finer than the sketch
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(changes):
    values = json.loads(CONFIG.to_json()) | changes
    with pytest.raises(WeightsError, match="does not make sense"):
        TiTokConfig.from_json(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"components": 49}, "components are 49, more than the spectrum"),
        ({"spectrum": 3072, "components": 2049}, "components are 2049, .* or 2048"),
        ({"components": -1}, "components is -1"),
        ({"components": True}, "components is True"),
        ({"components": 48.0}, "components is 48.0"),
        ({"components": "48"}, "components is '48'"),
        ({"components": None}, "components is None"),
        ({"spectrum": 0, "codebooks": 1, "head": "upsampler"}, "components are 48, more than the spectrum"),
    ],
    ids=str,
)
def test_components_that_do_not_fit_are_refused_by_name(changes, problem):
    values = json.loads(CONFIG.to_json()) | changes
    with pytest.raises(WeightsError, match=f"does not make sense: {problem}") as caught:
        TiTokConfig.from_json(json.dumps(values))
    assert "\n" not in str(caught.value)


def test_as_many_components_as_float16_can_count_are_allowed():
    config = replace(CONFIG, spectrum=3072, components=2048)
    assert TiTokConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("grid", [32, 64])
def test_every_size_that_is_allowed_decodes_pictures_of_its_size(size, grid):
    config = replace(CONFIG, image_size=size, patch_size=size // 8, head_grid=grid)
    model = TiTok(config).eval()
    pixels = torch.rand(1, 3, size, size)
    assert model.decode(model.encode(pixels)).shape == pixels.shape


def test_no_length_pays_for_what_another_gains_by_a_search():
    model, pixels = started(), fields(6, 256, seed=4)
    with torch.no_grad():
        own, found = (
            distortions(model, tokens, pixels).mean(1)
            for tokens in (model.encode(pixels), search(model, pixels, CONFIG.tokens, 6))
        )
    assert (found < 1.01 * own).all() and found.sum() < own.sum()


def test_linear_paths_that_did_not_start_in_closed_form_learn_as_well():
    torch.manual_seed(0)
    model, pictures = TiTok(CONFIG), fields(8, 256)
    start_in_2d(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    errors = []
    for _ in range(12):
        found = model(pictures)
        error = F.mse_loss(model.decode_codes(found.codes), pictures)
        (error + found.codebook_loss + 0.25 * found.commitment_loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        errors.append(error.item())
    assert found.commitment_loss < 1, "errors that are made up for do not grow from codebook to codebook"
    assert model.encoder.linear.weight.any() and model.decoder.linear.weight.any()
    assert errors[-1] < 0.9 * errors[0]
