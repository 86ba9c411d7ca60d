"""A model's configuration: its JSON is exact, and nothing senseless or hostile gets through."""

import dataclasses
import json

import pytest

from titokcodec.errors import TitokError, WeightsError
from titokcodec.models.config import LATER, PRESETS, TiTokConfig, Tower, preset

TINY = TiTokConfig(Tower(32, 1, 2), Tower(32, 1, 2), tokens=16, codes=64, nested=True, min_tokens=8)


def changed(**changes):
    """TINY's JSON with some values replaced; dots reach into towers."""
    values = json.loads(TINY.to_json())
    for name, value in changes.items():
        *outer, last = name.split("__")
        target = values[outer[0]] if outer else values
        target[last] = value
    return json.dumps(values)


@pytest.mark.parametrize("config", [TINY, *PRESETS.values()], ids=["tiny", *PRESETS])
def test_json_round_trip(config):
    assert TiTokConfig.from_json(config.to_json()) == config


def test_json_is_canonical_so_that_fingerprints_may_hash_it():
    shuffled = dict(reversed(json.loads(TINY.to_json()).items()))
    assert TiTokConfig.from_json(json.dumps(shuffled, indent=4)).to_json() == TINY.to_json()
    assert TINY.to_json() == (
        '{"code_width":12,"codes":64,"decoder":{"heads":2,"layers":1,"width":32},'
        '"encoder":{"heads":2,"layers":1,"width":32},"head":"upsampler","head_blocks":2,"head_grid":32,'
        '"head_width":64,"image_size":256,"l2_normalised":true,"legacy":false,"min_tokens":8,"nested":true,'
        '"patch_size":16,"pool":1,"tokens":16}'
    )


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(TiTokConfig) if f.name not in LATER])
def test_every_field_is_needed(name):
    values = json.loads(TINY.to_json())
    del values[name]
    with pytest.raises(WeightsError, match=name):
        TiTokConfig.from_json(json.dumps(values))


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": 1},
        {"encoder__depth": 3},
        {"encoder": 5},
        {"encoder": None},
        {"decoder": {"width": 32, "layers": 1}},
        {"tokens": True},
        {"tokens": "16"},
        {"tokens": 16.0},
        {"tokens": None},
        {"tokens": 0},
        {"tokens": -1},
        {"tokens": 257},
        {"tokens": float("inf")},
        {"codes": float("nan")},
        {"codes": 1},
        {"codes": 65537},
        {"code_width": 1 << 20},
        {"nested": 1},
        {"nested": False},  # but min_tokens is below tokens
        {"l2_normalised": "yes"},
        {"legacy": None},
        {"min_tokens": 17},
        {"head": "bigger"},
        {"head": []},
        {"head_blocks": 257},
        {"head_blocks": -1},
        {"head_grid": 24},
        {"head_grid": 48},
        {"image_size": 250},
        {"image_size": 1 << 40},
        {"patch_size": 48},
        {"pool": 3},
        {"encoder__width": 34},
        {"encoder__width": 1 << 15},
        {"encoder__heads": 5},
        {"encoder__heads": 0},
        {"encoder__layers": 257},
        {"decoder__layers": True},
    ],
    ids=str,
)
def test_nonsense_is_refused_in_one_line(changes):
    with pytest.raises(WeightsError, match="does not make sense") as error:
        TiTokConfig.from_json(changed(**changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "null", "5", "[]", "{}", '"x"', "{", "[" * 100_000, '{"encoder":' * 100_000, "9" * 5000, "\ud800"]
)
def test_text_that_is_no_config_is_refused(text):
    with pytest.raises(WeightsError):
        TiTokConfig.from_json(text)


def test_the_largest_config_allowed_allocates_nothing_on_the_meta_device():
    from titokcodec.models.meta import on_meta
    from titokcodec.models.tokenizer import TiTok

    side = 1 << 14
    tower = Tower(side, 1, 1)
    huge = TiTokConfig(
        tower,
        tower,
        256,
        codes=1 << 16,
        code_width=side,
        image_size=side,
        patch_size=side,
        head_width=side,
        head_blocks=256,
        head_grid=side,
    )
    model = on_meta(lambda: TiTok(huge))
    assert sum(value.numel() for value in model.state_dict().values()) > 1 << 56


def test_presets_are_the_published_sizes():
    sizes = {name: (c.encoder.width, c.decoder.width, c.tokens, c.codes, c.code_width) for name, c in PRESETS.items()}
    assert sizes == {
        "titok_l32": (1024, 1024, 32, 4096, 12),
        "titok_b64": (768, 768, 64, 4096, 12),
        "titok_s128": (512, 512, 128, 4096, 12),
        "titok_bl64": (768, 1024, 64, 8192, 64),
        "titok_bl128": (768, 1024, 128, 8192, 64),
        "titok_sl256": (512, 1024, 256, 8192, 64),
        "default_large": (320, 384, 128, 4096, 12),
        "default_2": (256, 256, 128, 4096, 12),
        "default": (256, 320, 128, 4096, 24),
    }
    heads = {tower.width // tower.heads for name, c in PRESETS.items() for tower in (c.encoder, c.decoder)}
    assert heads == {64}


def test_preset_takes_changes_and_names_what_there_is():
    assert preset("default", codes=1024).codes == 1024
    with pytest.raises(WeightsError, match=r"no preset is called 'titok'; there are titok_l32, .*default"):
        preset("titok")


@pytest.mark.parametrize("count", [7, 17, 0, -1])
def test_counts_outside_the_trained_span_are_refused(count):
    with pytest.raises(TitokError, match=f"8 to 16 tokens, not {count}"):
        TINY.check_count(count)


def test_counts_inside_the_trained_span_pass():
    for count in range(8, 17):
        TINY.check_count(count)
    preset("titok_l32").check_count(32)
    with pytest.raises(TitokError, match="exactly 32 tokens, not 31"):
        preset("titok_l32").check_count(31)
