"""What a generator looks like: a frozen dataclass, the published sizes, and how a checkpoint shows its own."""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass, fields

from titokcodec.errors import WeightsError
from titokcodec.format.limits import MAX_TOKENS
from titokcodec.models.config import MAX_LAYERS
from titokcodec.models.shapes import Shape, Shapes, shape_of
from titokcodec.models.validation import check_fields, check_types, parse_json, require

ARCHITECTURES = ("bert", "uvit", "codes")
MOST_PARAMETERS = 1 << 30  # 4 GiB in float32, over three times the largest published one; no file may ask for more
_SIXTEEN_HEADS = (768, 1024)  # published widths; the number of heads shows in no tensor's shape


@dataclass(frozen=True)
class GeneratorConfig:
    """Architecture of one generator. Raises ``WeightsError`` for sizes that make no sense.

    Attributes:
        architecture: ``bert`` (post-norm, learned positions), ``uvit`` (pre-norm, long skips) or ``codes`` (pre-norm,
            embeddings made of the codes' vectors).
        tokens: K, tokens a picture.
        codes: N, entries of the tokenizer's codebook.
        classes: C, classes it can be asked for.
        width, layers, heads, mlp: Of the transformer. A U-ViT has ``layers`` blocks, half before and half after one
            more in the middle.
        prefixes: Numbers of tokens at which sampling stops on the way, rising, the last one K: those of a nested
            tokenizer are sampled coarse to fine. Empty for all tokens at once. This and what follows: ``codes`` only.
        causal: Tokens are predicted in order, each from those before it (autoregressive), not from all (MaskGIT).
        codebooks: G, how many there are; K / G consecutive positions share one.
        code_width: d, width of a code's vector.
        hidden: Width of the hidden layer of the two maps between vectors and the transformer.
    """

    architecture: str
    tokens: int
    codes: int = 4096
    classes: int = 1000
    width: int = 768
    layers: int = 24
    heads: int = 16
    mlp: int = 3072
    prefixes: tuple[int, ...] = ()
    causal: bool = False
    codebooks: int = 1
    code_width: int = 12
    hidden: int = 512

    def __post_init__(self) -> None:
        check_types(self)
        named = reprlib.repr(self.architecture)
        require(self.architecture in ARCHITECTURES, f"architecture {named} is none of {', '.join(ARCHITECTURES)}")
        require(self.width % self.heads == 0, f"width {self.width} is not a multiple of {self.heads} heads")
        require(self.layers <= MAX_LAYERS, f"layers is {self.layers}")
        require(self.architecture != "uvit" or self.layers % 2 == 0, "a U-ViT has as many blocks before as after")
        require(self.tokens <= MAX_TOKENS, f"tokens is {self.tokens}, not 1 to {MAX_TOKENS}")
        require(self.codes >= 2, "a codebook needs two codes or more")
        self._check_codes()
        # The table of outputs is none of the parameters, but is held in memory all the same.
        row = self.width + 2 * self.code_width
        held = self.parameters + (self.codebooks * self.codes * row if self.architecture == "codes" else 0)
        require(held <= MOST_PARAMETERS, f"{held} parameters are more than {MOST_PARAMETERS}")

    def _check_codes(self) -> None:
        """What only ``codes`` has."""
        if self.architecture != "codes":
            odd = [name for name in _OF_CODES if getattr(self, name) != _OF_CODES[name]]
            require(not odd, f"{', '.join(odd)} is for the architecture codes alone")
            return
        given = self.prefixes
        whole = isinstance(given, tuple) and all(type(count) is int for count in given)
        rising = whole and all(a < b for a, b in zip((0, *given), given, strict=False))
        named = reprlib.repr(list(given) if isinstance(given, tuple) else given)
        require(rising, f"prefixes is {named}, not a list of rising numbers from 1 up")
        require(self.counts[-1] == self.tokens, f"prefixes is {named}: the last one must be all {self.tokens} tokens")
        even = self.tokens % self.codebooks == 0
        require(even, f"{self.tokens} tokens are not shared evenly by {self.codebooks} codebooks")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of tokens that a picture can have, rising: each is sampled given those of the one before."""
        return self.prefixes or (self.tokens,)

    @property
    def share(self) -> int:
        """How many consecutive positions have a codebook in common."""
        return self.tokens // self.codebooks

    @property
    def mask_id(self) -> int:
        """The id that stands where a token is not known yet."""
        return self.codes

    @property
    def null_id(self) -> int:
        """The id of no class, which the unconditional branch of guidance is given."""
        return self.codes + 1 + self.classes

    @property
    def parameters(self) -> int:
        """How many numbers the model holds, without building it."""
        width, mlp = self.width, self.mlp
        if self.architecture == "codes":
            maps = 2 * ((self.code_width + 1) * self.hidden + (self.hidden + 1 + self.code_width) * width)
            fixed = (self.codebooks * self.codes + self.tokens) * self.code_width
            tables = (self.tokens + self.classes + 2 + (not self.causal)) * width + self.tokens * self.codes
            tables += 3 * self.tokens * self.code_width * width  # each position's maps
            block = 4 * width * width + 9 * width + (2 * width + 1) * mlp
            return fixed + tables + maps + self.layers * block + 2 * width
        common = (self.null_id + 1 + self.tokens + 1) * width + 2 * width + (width + 1) * self.codes
        block = 4 * width * width + 4 * width + (2 * width + 1) * mlp + 2 * width  # attention, norms, both MLP layers
        if self.architecture == "bert":
            return common + 2 * width + self.layers * (block + 3 * width)  # token types; biases of q, k and v
        return common + (self.layers + 1) * block + self.layers // 2 * (2 * width + 1) * width

    def to_json(self) -> str:
        """Canonical text: equal configs give equal bytes, so that fingerprints may hash it."""
        absent = (
            () if self.architecture == "codes" else _OF_CODES
        )  # older files know none of these, nor do fingerprints
        values = {name: value for name, value in asdict(self).items() if name not in absent}
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> GeneratorConfig:
        """Inverse of ``to_json``. Raises ``WeightsError`` for anything but a complete, sensible config."""
        values = parse_json(text)
        of_codes = isinstance(values, dict) and values.get("architecture") == "codes"
        check_fields(values, cls, "it", () if of_codes else _OF_CODES)  # a default may change, a file may not
        if isinstance(values.get("prefixes"), list):
            values["prefixes"] = tuple(values["prefixes"])
        return cls(**values)


# The fields that only this architecture has, and what they are in the others.
_OF_CODES = {
    field.name: field.default
    for field in fields(GeneratorConfig)
    if field.name in ("prefixes", "causal", "codebooks", "code_width", "hidden")
}


# Published totals: 177 million for L32, which the listed tensors alone make (a pooler would make 178), and 295 million
# for S128 by its code, an output layer of its own with a bias included.
GENERATOR_PRESETS: dict[str, GeneratorConfig] = {
    "generator_titok_l32": GeneratorConfig("bert", 32),
    "generator_titok_b64": GeneratorConfig("bert", 64),
    "generator_titok_s128": GeneratorConfig("uvit", 128, width=1024, layers=20, mlp=4096),
}


def config_of(shapes: Shapes, heads: int | None = None) -> GeneratorConfig:
    """The architecture of a published checkpoint, from the tensors that show its sizes.

    Allocates nothing, whatever the shapes claim. That all other tensors fit is checked where they are loaded.

    No shape shows the heads: None takes 16 at the published widths 768 and 1024, one for every 64 channels elsewhere.
    Raises ``WeightsError`` if a tensor that shows a size is missing (it is named) or misshapen, or a size is absurd.
    """

    def shape(name: str, axes: int) -> Shape:
        return shape_of(shapes, name, axes, "no generator")

    if "model.embeddings.word_embeddings.weight" in shapes:
        vocabulary, width = shape("model.embeddings.word_embeddings.weight", 2)
        positions, _ = shape("model.embeddings.position_embeddings.weight", 2)
        codes, _ = shape("model.lm_head.weight", 2)
        mlp, _ = shape("model.encoder.layer.0.intermediate.dense.weight", 2)
        architecture, layers = "bert", _count(shapes, "model.encoder.layer.")
    elif "embeddings.weight" in shapes:
        vocabulary, width = shape("embeddings.weight", 2)
        _, positions, _ = shape("pos_embed", 3)
        codes, _ = shape("lm_head.weight", 2)
        mlp, _ = shape("in_blocks.0.mlp.fc1.weight", 2)
        architecture, layers = "uvit", 2 * _count(shapes, "in_blocks.")
    else:
        raise WeightsError(
            "this is no generator, neither ours nor a BERT nor a U-ViT: give a generator's file, as "
            "generator.safetensors of a training run"
        )
    if heads is None:
        heads = 16 if width in _SIXTEEN_HEADS else max(1, width // 64)
    return GeneratorConfig(architecture, positions - 1, codes, vocabulary - codes - 2, width, layers, heads, mlp)


def _count(shapes: Shapes, prefix: str) -> int:
    """How many different numbers follow the prefix; a gap shows once all names are compared."""
    return len({name[len(prefix) :].split(".", 1)[0] for name in shapes if name.startswith(prefix)})
