"""Tables of generators from small results written by hand."""

from bench import generators

ROW = {
    "factor": "default",
    "tokens": 32,
    "steps": 16,
    "schedule": "linear",
    "order": "random",
    "guidance": "constant",
    "guidance_scale": 1.5,
    "fd": 210.64,
    "class_agreement": 0.2554,
    "recall": 0.05,
    "top_p": 1.0,
    "milliseconds": 10.67,
    "intervals": {"fd": [208.0, 213.2]},
}
OTHER = ROW | {"factor": "steps", "steps": 4, "fd": 215.0}
ABOUT = {
    "generator": "small",
    "samples": 1040,
    "classes": ["ant", "bee"],
    "seeds": [0, 1, 2, 3],
    "reference": 260,
    "held_out_by_name": True,
    "judge": "Lite1",
    "autoregressive": False,
    "dtype": "bfloat16",
}


def test_settings_are_told_by_what_the_kind_of_generator_has():
    found = {
        "protocol": ABOUT,
        "settings": [ROW, OTHER],
        "yardsticks": {"real": ROW, "chance": {"class_agreement": 0.5}},
    }
    table = generators.ablation(found)
    assert (
        "| 32 tokens, linear, random order, 16 steps, constant guidance 1.5 (default) | 210.6 ± 2.6 | 0.255 |" in table
    )
    assert "| steps 4 | 215.0 ± 2.6 |" in table and "| *chance* | - | 0.500 |" in table
    assert table.endswith("Computed in bfloat16.\n")
    found = {**found, "protocol": ABOUT | {"autoregressive": True}, "settings": [ROW | {"top_p": 0.9}, OTHER]}
    assert "| 32 tokens, constant guidance 1.5, top-p 0.9 (default) |" in generators.ablation(found)


def test_generators_are_compared_by_their_default_rows():
    about = {"what": "masked", "autoregressive": False, "ablation": "a.json", "entropy": {"32": 7.965, "64": 8.0}}
    found = {
        "generators": {"first": about, "second": about | {"what": "in order", "autoregressive": True}},
        "note": "For an hour.",
        "classes": {"bee": 1200, "ant": 3},
    }
    table = generators.compared(found, lambda name: {"a.json": {"settings": [OTHER, ROW]}}[name])
    assert "| first, masked | 7.96 / 8.00 | 16 | 11 | 210.6 ± 2.6 | 0.255 | 0.05 |" in table
    assert "| second, in order | 7.96 / 8.00 | 32 | 11 |" in table and table.endswith("\nFor an hour.\n")
    assert generators.classes(found) == "\nant (3), bee (1,200)\n"


def test_copies_are_told_beside_held_out_pictures():
    found = {"samples": 512, "tokens": 32, "share": 0.004, "interval": [0.001, 0.014], "training": 21152}
    found |= {"held_out": 500, "share_of_held_out": 0.01, "median_ratio": 0.82, "median_ratio_of_held_out": 0.845}
    text = generators.copies(found)
    assert "0.4% come suspiciously near to one of 21,152 training pictures (95 % interval 0.1% to 1.4%)" in text
