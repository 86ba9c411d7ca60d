"""The sampler: schedules and guidance by hand, and step by step the same tokens as a plain sampler, one at a time."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from titokcodec import sampling
from titokcodec.errors import TitokError
from titokcodec.guidance import guidance_scale_at
from titokcodec.sampling import PUBLISHED, Settings, walk
from titokcodec.schedules import mask_fraction, masked_counts

K, N, CLASSES = 12, 20, 3  # of the networks below
MASK = N


class Network:
    """Logits that depend on class, position and every token, of which it writes down how it was asked."""

    def __init__(self, spread=1.0):
        random = torch.Generator().manual_seed(5)
        self.base = torch.randn(CLASSES + 1, K, N, generator=random) * spread
        self.table = torch.randn(N + 1, K, N, generator=random) * spread
        self.asked = []

    def __call__(self, tokens, labels):
        self.asked.append((tokens, labels))
        context = sum(self.table[tokens[:, k]].roll(k, 1) for k in range(K)) / K
        return self.base[labels] + context  # label -1 is the last of them

    def one(self, row, label):
        """The same for one row of numbers, as K lists of N numbers."""
        tensor = torch.tensor([row])
        return self(tensor, torch.tensor([-1 if label is None else label]))[0].double().tolist()


def uniform(step, shape):
    """The same numbers for the same step and shape, whoever asks."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(100 * step + len(shape)))


def run(network, tokens, labels, settings, noise=uniform, guided=True):
    """All steps of the sampler as lists."""
    hidden = (tokens == MASK).sum(1).tolist()
    return [step.tolist() for step in walk(network, tokens, labels, hidden, MASK, settings, noise, guided)]


def masks(count=3):
    return torch.full((count, K), MASK)


# ---- schedules and scales by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "ratio", "share"),
    [
        ("arccos", 0.5, 2 / 3),
        ("arccos", math.sqrt(0.5), 1 / 2),
        ("arccos", math.sqrt(0.75), 1 / 3),
        ("arccos", 0.125, 0.920213),
        ("linear", 0.25, 0.75),
        ("linear", 0.9, 0.1),
        ("cosine", 0.5, math.sqrt(0.5)),
        ("cosine", 2 / 3, 0.5),
        ("cosine", 1 / 3, math.sqrt(0.75)),
        ("root", 0.25, 0.5),
        ("root", 0.81, 0.1),
        ("root", 0.5, 0.2928932),
    ],
)
def test_mask_fraction(schedule, ratio, share):
    assert mask_fraction(schedule, ratio) == pytest.approx(share, abs=1e-6)
    drawn = mask_fraction(schedule, torch.tensor([[ratio, 0.0, 1.0]]))  # as training asks for it
    torch.testing.assert_close(drawn, torch.tensor([[share, 1.0, 0.0]]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "steps", "hidden", "counts"),
    [
        # 32 * arccos(t/8) / 90 degrees: 29.4, 26.9, 24.2, 21.3, 18.2, 14.7, 10.3
        ("arccos", 8, 32, [29, 26, 24, 21, 18, 14, 10, 0]),
        ("arccos", 2, 12, [8, 0]),
        ("linear", 4, 8, [6, 4, 2, 0]),
        ("linear", 10, 10, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        ("cosine", 4, 16, [14, 11, 6, 0]),  # 16 * .924, .707, .383
        ("root", 4, 16, [8, 4, 2, 0]),  # 16 * .5, .293, .134
        ("root", 4, 3, [1, 1, 1, 0]),  # the last one waits for the last step
        ("cosine", 8, 3, [2, 1, 1, 1, 1, 1, 1, 0]),  # shares of 2.9, 2.8, 2.5: yet every step reveals one
        ("arccos", 1, 32, [0]),
        ("arccos", 4, 1, [1, 1, 1, 0]),
        ("linear", 4, 0, [0, 0, 0, 0]),
    ],
)
def test_masked_counts(schedule, steps, hidden, counts):
    assert masked_counts(schedule, steps, hidden) == counts


@pytest.mark.parametrize(
    ("guidance", "scale", "steps", "scales"),
    [
        ("constant", 4.5, 3, [4.5, 4.5, 4.5]),
        ("linear", 4.5, 8, [0, 0.5625, 1.125, 1.6875, 2.25, 2.8125, 3.375, 3.9375]),
        ("linear", 3, 1, [0]),
        ("power-cosine", 3, 2, [1, 1.0761205]),  # 1 + 2 (1 - cos 22.5 degrees) / 2
        ("power-cosine", 1, 4, [1, 1, 1, 1]),
        ("cosine", 3, 4, [0, 0.4393398, 1.5, 2.5606602]),  # 3 (1 - cos 0, 45, 90, 135 degrees) / 2
        ("linear-decay", 3, 4, [3, 2.25, 1.5, 0.75]),
    ],
)
def test_guidance_scales(guidance, scale, steps, scales):
    assert [guidance_scale_at(guidance, scale, t, steps) for t in range(steps)] == pytest.approx(scales, abs=1e-6)


def test_guidance_scales_of_the_published_64_steps():
    found = [guidance_scale_at("power-cosine", 6.9, t, 64) for t in (0, 32, 48, 63)]
    # (t/64)^3 = 0, .125, .421875, .953854; times 180 degrees: 0, 22.5, 75.9375, 171.694
    assert found == pytest.approx([1, 1.224556, 3.233221, 6.869066], abs=1e-4)


@pytest.mark.parametrize(
    ("guidance", "interval", "scales"),
    [
        ("constant", (0, 1), [2, 2, 2, 2]),
        ("constant", (0.25, 1), [None, 2, 2, 2]),
        ("constant", (0, 0.5), [2, 2, None, None]),
        ("linear-decay", [0.25, 0.75], [None, 1.5, 1, None]),
        ("power-cosine", (0.7, 0.9), [None, None, None, 1.37851]),
        ("linear", (0, 1), [None, 0.5, 1, 1.5]),
    ],
)
def test_guidance_acts_within_its_interval(guidance, interval, scales):
    settings = Settings(guidance_scale=2, guidance=guidance, guidance_interval=interval)
    assert [settings.scale_at(t, 4) for t in range(4)] == pytest.approx(scales, abs=1e-6)


def test_guidance_counts_from_its_own_end():
    conditional, unconditional = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
    assert sampling.guide("constant", 2.0, conditional, unconditional).tolist() == [7, -1]
    assert sampling.guide("linear", 2.0, conditional, unconditional).tolist() == [7, -1]
    assert sampling.guide("power-cosine", 2.0, conditional, unconditional).tolist() == [5, 0]


def test_temperatures():
    assert [sampling.softmax_temperature(r) for r in (0.125, 0.5, 1)] == pytest.approx([1.2, 0.9, 0.5])
    noise = sampling.gumbel(torch.tensor([math.exp(-1), math.exp(-math.e), 0.0, 1 - 2**-24]))
    assert noise.tolist() == pytest.approx([0, -1, -math.log(math.log(1e20)), 16.6355], rel=1e-4, abs=1e-6)


def test_published_settings():
    """Section 1.7's table: steps, temperature, guidance scale and decay; softmax temperature in the ImageNet script."""
    fields = ("steps", "temperature", "guidance_scale", "guidance", "softmax_temperature", "schedule")
    found = {name: tuple(getattr(Settings(**values), field) for field in fields) for name, values in PUBLISHED.items()}
    assert found == {
        "generator_titok_l32": (8, 9.5, 4.5, "linear", True, "arccos"),
        "generator_titok_b64": (8, 11.0, 3.0, "linear", True, "arccos"),
        "generator_titok_s128": (64, 2.8, 6.9, "power-cosine", True, "arccos"),
        "demo": (8, 1.0, 4.5, "constant", False, "arccos"),
    }


# ---- the same sampler, written plainly, a row, a position and a code at a time --------------------------------


def share_of(schedule, r):
    return {
        "arccos": math.acos(r) / (math.pi / 2),
        "linear": 1 - r,
        "cosine": math.cos(math.pi / 2 * r),
        "root": 1 - r**0.5,
    }[schedule]


def gumbel_of(u):
    return -math.log(max(-math.log(max(u, 1e-20)), 1e-20))


def plain(network, start, labels, settings):
    """All steps, rows independent but for the noise, which is drawn for the batch."""
    rows, steps, done = [list(row) for row in start], settings.steps, []
    many = len(rows)
    first = [row.count(MASK) for row in rows]
    for t in range(steps):
        ratio = (t + 1) / steps
        temperature = settings.temperature * (1 - ratio)
        shares, again = uniform(t, (many, len(rows[0]), N)).tolist(), uniform(t, (many, len(rows[0]))).tolist()
        for b, row in enumerate(rows):
            logits = network(row, labels[b])
            nothing = network(row, None)
            guided = []
            for c, u in zip(logits, nothing, strict=True):
                if settings.guidance == "constant":
                    s = settings.guidance_scale
                    guided.append([x + s * (x - y) for x, y in zip(c, u, strict=True)])
                elif settings.guidance == "linear":
                    s = 0 if t == 0 else t / steps * settings.guidance_scale
                    guided.append([x + s * (x - y) for x, y in zip(c, u, strict=True)])
                else:
                    s = (settings.guidance_scale - 1) * (1 - math.cos(math.pi * (t / steps) ** 3)) / 2 + 1
                    guided.append([y + s * (x - y) for x, y in zip(c, u, strict=True)])
            if settings.softmax_temperature:
                guided = [[x / (0.5 + 0.8 * (1 - ratio)) for x in position] for position in guided]
            guess, sure, was = list(row), {}, [k for k, token in enumerate(row) if token == MASK]
            for k in was:
                noisy = [x + temperature * gumbel_of(u) for x, u in zip(guided[k], shares[b][k], strict=True)]
                guess[k] = max(range(N), key=noisy.__getitem__)
                sure[k] = guided[k][guess[k]] + temperature * gumbel_of(again[b][k])
            if t < steps - 1 and was:
                keep_masked = max(1, min(len(was) - 1, math.floor(first[b] * share_of(settings.schedule, ratio))))
                for k in sorted(was, key=sure.__getitem__)[:keep_masked]:
                    guess[k] = MASK
            rows[b] = guess
        done.append([list(row) for row in rows])
    return done


@pytest.mark.parametrize("soft", [False, True], ids=["", "softmax"])
@pytest.mark.parametrize("temperature", [0, 3.0])
@pytest.mark.parametrize(
    ("guidance", "scale"),
    [("constant", 1.5), ("linear", 4.5), ("power-cosine", 6.9), ("constant", 0), ("constant", -1)],
)
def test_every_step_agrees_with_the_plain_one(guidance, scale, temperature, soft):
    network = Network()
    settings = Settings(7, scale, guidance, "arccos", temperature, soft)
    expected = plain(network.one, masks().tolist(), [0, 2, None], settings)
    assert run(network, masks(), torch.tensor([0, 2, -1]), settings) == expected


@pytest.mark.parametrize("schedule", ["arccos", "linear", "cosine", "root"])
@pytest.mark.parametrize("steps", [1, 2, 8, 30])
def test_every_schedule_agrees_with_the_plain_one(schedule, steps):
    network = Network()
    settings = Settings(steps, 2.0, "linear", schedule, 1.0)
    found = run(network, masks(2), torch.tensor([1, 0]), settings)
    assert found == plain(network.one, masks(2).tolist(), [1, 0], settings)
    counts = [[row.count(MASK) for row in step] for step in found]
    assert [a for a, _ in counts] == [b for _, b in counts] == masked_counts(schedule, steps, K)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_settings_agree_with_the_plain_sampler(name):
    network, settings = Network(4.0), Settings(**PUBLISHED[name])
    expected = plain(network.one, masks(2).tolist(), [2, 1], settings)
    assert run(network, masks(2), torch.tensor([2, 1]), settings) == expected


def test_rows_with_different_gaps_agree_with_the_plain_sampler():
    network, settings = Network(), Settings(5, temperature=2.0)
    start = torch.randint(N, (4, K), generator=torch.Generator().manual_seed(3))
    for row, gap in enumerate((K, 5, 1, 0)):
        start[row, torch.arange(K).roll(row * 4)[:gap]] = MASK
    found = run(network, start, torch.tensor([0, 1, 2, -1]), settings)
    assert found == plain(network.one, start.tolist(), [0, 1, 2, None], settings)
    known = start != MASK
    for step in found:
        assert torch.tensor(step)[known].equal(start[known])
    assert not any(MASK in row for row in found[-1])


# ---- coarse to fine -------------------------------------------------------------------------------------------


class Parts:
    """Networks for the first 4, 7 and all 12 tokens, each of which knows as many, and notes how it was asked."""

    ends = (4, 7, K)

    def __init__(self):
        self.asked = []

    def __call__(self, tokens, labels):
        self.asked.append(tokens)
        filled = torch.cat([tokens, tokens.new_zeros(len(tokens), K - tokens.shape[1])], 1)
        return Network()(filled, labels)[:, : tokens.shape[1]]


def parts(start, settings, network=None, noise=uniform, ends=Parts.ends):
    labels = torch.arange(len(start)) % CLASSES
    masked = (start == MASK).numpy()
    return sampling.walk_parts(network or Parts(), start, labels, masked, ends, MASK, settings, noise)


def test_parts_are_sampled_one_after_the_other():
    network = Parts()
    found = parts(masks(2), Settings(3, guidance_scale=0, schedule="linear"), network)
    assert [tokens.shape[1] for tokens in network.asked] == [4, 4, 4, 7, 7, 7, 12, 12, 12]
    hidden = [(tokens == MASK).sum(1).tolist() for tokens in network.asked]
    assert [a for a, _ in hidden] == [b for _, b in hidden] == [4, 2, 1, 3, 2, 1, 5, 3, 1]
    for tokens in network.asked[3:]:
        assert tokens[:, :4].equal(found[:, :4])
    for tokens in network.asked[6:]:
        assert tokens[:, :7].equal(found[:, :7])


def test_a_part_is_sampled_as_a_picture_whose_beginning_is_known():
    settings = Settings(3, 2.0, "constant", temperature=2.0)
    found = parts(masks(2), settings)
    network, labels = Parts(), torch.arange(2)
    *_, expected = walk(network, masks(2)[:, :4], labels, [4] * 2, MASK, settings, uniform)
    assert found[:, :4].equal(expected)
    start = torch.cat([expected, masks(2)[:, :3]], 1)

    def later(step, shape):
        return uniform(step + 3, shape)

    *_, expected = walk(network, start, labels, [3] * 2, MASK, settings, later, first=4)
    assert found[:, :7].equal(expected)
    assert parts(masks(2)[:, :7], settings, ends=(4, 7)).equal(found[:, :7])  # fewer tokens are the first of more


def streams(count):
    """Noise of each row from a stream of its own, as the command has it."""
    own = [torch.Generator().manual_seed(row) for row in range(count)]
    return lambda step, shape: torch.stack([torch.rand(shape[1:], generator=one) for one in own])


@pytest.mark.parametrize("temperature", [0, 2.0])
def test_parts_without_gaps_are_skipped_and_rows_depend_on_none_but_themselves(temperature):
    settings = Settings(3, temperature=temperature)
    start = torch.randint(N, (2, K), generator=torch.Generator().manual_seed(3))
    start[0, 8:11] = MASK  # the first row lacks tokens of the last part alone
    start[1, 2:9] = MASK
    network = Parts()
    alone = parts(start[:1], settings, network, streams(1))
    assert [tokens.shape[1] for tokens in network.asked] == [12] * 3
    assert parts(start, settings, noise=streams(2))[:1].equal(alone)
    known = start[0] != MASK
    assert alone[0, known].equal(start[0, known]) and MASK not in alone


# ---- nucleus --------------------------------------------------------------------------------------------------


def test_the_nucleus_by_hand():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    for top_p, kept in ((1, [0, 1, 2, 3]), (0.95, [0, 1, 2, 3]), (0.89, [1, 2, 3]), (0.7, [1, 3]), (1e-9, [1])):
        found = sampling.nucleus(logits, top_p)
        assert found.isfinite()[0].nonzero().flatten().tolist() == kept
        assert found[0, kept].equal(logits[0, kept])


@pytest.mark.parametrize(("top_p", "codes"), [(0.8, {1, 3}), (1.0, {0, 1, 2, 3})])
def test_codes_outside_the_nucleus_are_never_sampled(top_p, codes):
    logits = torch.tensor([0.05, 0.6, 0.05, 0.3]).log().expand(400, 2, 4)
    tokens, labels, random = torch.full((400, 2), 4), torch.full((400,), -1), torch.Generator().manual_seed(1)
    settings = Settings(2, temperature=2.0, top_p=top_p)  # 1 at the first step
    first, _ = walk(
        lambda *_: logits,
        tokens,
        labels,
        [2] * 400,
        4,
        settings,
        lambda step, shape: torch.rand(shape, generator=random),
        guided=False,
    )
    assert set(first.flatten().tolist()) - {4} == codes


# ---- the quirks, one by one -----------------------------------------------------------------------------------


def test_noise_is_added_a_second_time():
    """Two positions sure of their codes; only noise on the confidences can make the surer one wait."""
    logits = torch.zeros(1, 2, 3)
    logits[0, :, 1] = torch.tensor([30.0, 29.0])
    asked = []

    def noise(step, shape):
        asked.append((step, shape))
        return torch.full(shape, 0.5) if len(shape) == 3 else torch.tensor([[0.01, 0.99]])

    start, none = torch.full((1, 2), 3), torch.tensor([-1])
    settings = Settings(2, temperature=8.0)
    first, last = walk(lambda *_: logits, start, none, [2], 3, settings, noise, guided=False)
    assert first.tolist() == [[3, 1]]  # by its logit alone, position 0 would have come first
    assert last.tolist() == [[1, 1]]
    assert asked == [(0, (1, 2, 3)), (0, (1, 2))]  # twice in a step; at the last one its temperature is 0

    quiet, _ = walk(lambda *_: logits, start, none, [2], 3, Settings(2, temperature=0), noise, guided=False)
    assert quiet.tolist() == [[1, 3]]


@pytest.mark.parametrize(
    ("guidance", "scale", "sizes"),
    [
        ("linear", 4.5, [2, 4, 4, 4]),  # the first step goes without
        ("power-cosine", 4.5, [2, 4, 4, 4]),  # its first scale of 1 is the conditional logits as well
        ("constant", 4.5, [4, 4, 4, 4]),
        ("constant", 0, [2, 2, 2, 2]),
        ("power-cosine", 1, [2, 2, 2, 2]),
        ("power-cosine", 0, [2, 4, 4, 4]),
        ("cosine", 2, [2, 4, 4, 4]),
        (("constant", (0.5, 0.75)), 2, [2, 2, 4, 2]),
    ],
)
def test_both_branches_are_one_batch_and_one_where_one_will_do(guidance, scale, sizes):
    guidance, interval = (guidance, (0, 1)) if isinstance(guidance, str) else guidance
    network = Network()
    run(network, masks(2), torch.tensor([1, 2]), Settings(4, scale, guidance, guidance_interval=interval))
    assert [len(tokens) for tokens, _ in network.asked] == sizes
    for tokens, labels in network.asked:
        if len(tokens) == 4:
            assert tokens[:2].equal(tokens[2:]) and labels.tolist() == [1, 2, -1, -1]
        else:
            assert labels.tolist() == [1, 2]


def test_without_any_class_there_is_nothing_to_guide():
    network = Network()
    alone = run(network, masks(2), torch.tensor([-1, -1]), Settings(4, guidance="constant"), guided=False)
    assert [len(tokens) for tokens, _ in network.asked] == [2] * 4
    assert alone == run(network, masks(2), torch.tensor([-1, -1]), Settings(4, guidance="constant"))


def test_at_temperature_zero_nobody_asks_for_noise():
    def silent(step, shape):
        raise AssertionError

    run(Network(), masks(), torch.tensor([0, 1, 2]), Settings(5, temperature=0), silent)


def test_equal_confidences_still_reveal_the_right_number():
    found = walk(
        lambda tokens, _: torch.zeros(*tokens.shape, N),
        masks(1),
        torch.tensor([-1]),
        [K],
        MASK,
        Settings(4, schedule="linear", temperature=0),
        uniform,
    )
    assert [(step == MASK).sum().item() for step in found] == [9, 6, 3, 0]


def test_an_empty_batch():
    found = run(Network(), masks(0), torch.zeros(0, dtype=torch.int64), Settings(3))
    assert found == [[], [], []]


class Deaf(TorchDispatchMode):
    """Fails where the host would wait for a number of the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique"), name
        return function(*args, **kwargs or {})


def test_the_loop_never_waits_for_the_device():
    network, labels = Network(), torch.tensor([0, 1, -1])
    walked = walk(network, masks(), labels, [K] * 3, MASK, Settings(4, softmax_temperature=True), uniform)
    first = next(walked)
    with Deaf():
        for step in walked:
            first = step
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            first.max().item()
    assert MASK not in first


@pytest.mark.cuda
def test_the_loop_never_waits_for_a_gpu():
    logits, labels = torch.randn(6, K, N, device="cuda"), torch.tensor([0, 1, -1]).cuda()
    walked = walk(
        lambda tokens, _: logits[: len(tokens)],
        masks().cuda(),
        labels,
        [K] * 3,
        MASK,
        Settings(4),
        lambda step, shape: torch.rand(shape, device="cuda"),
    )
    next(walked)
    torch.cuda.set_sync_debug_mode("error")
    try:
        *_, last = walked
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert MASK not in last.cpu()


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 10_001},
        {"steps": 8.0},
        {"steps": True},
        {"guidance": "sine"},
        {"guidance_interval": (0.5, 0.5)},
        {"guidance_interval": (0, 1.1)},
        {"guidance_interval": (0, math.nan)},
        {"guidance_interval": (0, 0.5, 1)},
        {"guidance_interval": "01"},
        {"guidance_interval": 1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"top_p": None},
        {"guidance": None},
        {"schedule": "power-cosine"},
        {"temperature": -1},
        {"temperature": math.nan},
        {"temperature": "hot"},
        {"guidance_scale": math.inf},
        {"guidance_scale": None},
        {"softmax_temperature": "no"},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(TitokError, match=next(iter(wrong))) as caught:
        Settings(**wrong)
    assert "\n" not in str(caught.value)


# ---- other orders than by confidence ----------------------------------------------------------------------------


def test_sequential_order_decides_the_first_tokens_first():
    settings = Settings(4, order="sequential", schedule="linear")
    steps = run(Network(), masks(), torch.tensor([0, 1, -1]), settings)
    decided = [[[token != MASK for token in row] for row in step] for step in steps]
    for number, step in enumerate(decided, 1):
        assert all(row == [place < 3 * number for place in range(K)] for row in step)


def test_random_order_decides_any_tokens_and_keeps_them():
    labels = torch.zeros(200, dtype=torch.int64)
    first, *_, last = run(Network(), masks(200), labels, Settings(4, order="random", schedule="linear"))
    first, last = torch.tensor(first), torch.tensor(last)
    share = (first != MASK).float().mean(0)
    assert ((first != MASK).sum(1) == 3).all() and ((share > 0.12) & (share < 0.4)).all()  # a quarter of each position
    assert torch.where(first == MASK, last, first).equal(last)


@pytest.mark.parametrize("order", ["random", "sequential"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_codes_of_other_orders_are_as_likely_as_the_softmax_says(order, temperature):
    logits = torch.tensor([0.0, 1.0, -1.0]).expand(4000, 2, 3)
    settings = Settings(2, guidance_scale=0, order=order, temperature=temperature)
    tokens = torch.full((4000, 2), 3)
    walked = walk(lambda tokens, labels: logits, tokens, torch.zeros(4000).long(), [2] * 4000, 3, settings, uniform)
    found = torch.bincount(list(walked)[-1].flatten(), minlength=3) / 8000
    torch.testing.assert_close(found, (logits[0, 0] / temperature).softmax(0), rtol=0, atol=0.02)


def test_unknown_orders_are_refused():
    with pytest.raises(TitokError, match="order is 'left': give one of confidence, random, sequential"):
        Settings(order="left")
