"""Configs in YAML from strangers: what a config needs, and nothing that swells, runs or raises."""

import time

import pytest

from tests.weights.test_checkpoints import published
from titokcodec.errors import WeightsError
from titokcodec.weights.checkpoints import read_config, recognise

yaml = pytest.importorskip("yaml")

from titokcodec.weights.yaml_config import LARGEST, parse_yaml  # noqa: E402

PUBLISHED = """
experiment:
    project: "titok_bl64"
    init_weight: ""  # nothing
model:
    vq_model:
        codebook_size: 8192
        token_size: 64
        use_l2_norm: False
        commitment_cost: 0.25
        vit_enc_model_size: "base"
        quantize_mode: vq
        is_legacy: no
losses: {perceptual: lpips-convnext_s-1.0-0.1, start: 1e-4, lr: 1.0e-4, steps: 500_000}
dataset:
    params:
        - train: "path/{00000..00252}.tar"
        - [1, 0x10, -3, .inf, ~, null, "3", '', "${experiment.name}"]
"""


def test_a_config_is_read_as_pyyaml_reads_it():
    assert parse_yaml(PUBLISHED.encode()) == yaml.safe_load(PUBLISHED)
    for text in ("3", "a", "[]", "{}", "", "# nothing", "- a\n- {b: [c]}", "a: |\n  two\n  lines\n", "'1': 2\n1: 3"):
        assert parse_yaml(text.encode()) == yaml.safe_load(text)


def billion_laughs():
    levels = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join([*levels, "model: {vq_model: {codebook_size: *a9}}"])


@pytest.mark.parametrize(
    "text",
    [
        billion_laughs(),
        "a: &x 1",
        "a: *x",
        "model: &m\n    vq_model: *m",
        "<<: *a",
        "a: !!bool foo",
        "a: !!int ''",
        "a: !!float x",
        "a: !!timestamp x",
        "a: !!null {}",
        "!!omap [a: 1]",
        "!!set {a}",
        "!!binary x",
        "! a",
        "a: !!python/name:os.system",
        "[a]: 1",
        "? {a: b}\n: 1",
        "a: 0b_",
        "a: '\\",
        "--- 1\n--- 2",
        "%YAML 9999.1\n---\n",
        'a: "\\UFFFFFFFF"',
        "a: " + "9" * 5000,
        "a: " + ":".join(["59"] * 5000),
        "[" * 40 + "]" * 40,
        "a: b: c",
        "\0",
        "@",
    ],
    ids=range(28),
)
def test_what_no_config_needs_is_refused_in_one_line(text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(WeightsError, match=r"config.yaml is no config in JSON or YAML: ") as caught:
        read_config(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert time.process_time() - started < 2


def test_a_large_file_is_refused_before_it_is_read_as_yaml(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("- 1\n" * (1 << 18))  # takes pyyaml a minute
    started = time.process_time()
    with pytest.raises(WeightsError, match=r"config.yaml: more than 32768 bytes are no config"):
        read_config(path)
    assert time.process_time() - started < 1
    path.write_text("- 1\n" * (LARGEST // 4 - 1) + "a")
    with pytest.raises(WeightsError):
        read_config(path)
    assert time.process_time() - started < 20  # what fits takes a second or two


def test_a_wrong_value_is_described_in_brief():
    """A list of a megabyte, in JSON, was once a line of a megabyte."""
    for said in (["x" * 1000] * 1000, [[[[[[[[[]]]]]]]]], 10**4000, {"a": {"b": "c" * 10_000}}):
        with pytest.raises(WeightsError, match="it says that codebook_size is ") as caught:
            recognise(published("titok_bl64"), {"model": {"vq_model": {"codebook_size": said, "is_legacy": False}}})
        assert len(str(caught.value)) < 400
