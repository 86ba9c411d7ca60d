"""Tables of generators: what their sampler's settings do, how two of them compare, and what they know."""

from __future__ import annotations

from collections.abc import Callable

from .cells import rows, setting

ABLATION = {  # the columns of the ablation, if it has them: heads and digits
    "fd": ("FD", 1),
    "fid": ("FID", 1),
    "inception_score": ("IS", 2),
    "class_agreement": ("class agreement, of {classes}", 3),
    "class_agreement_lite0": ("by Lite0", 3),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "top1_agreement": ("top-1 agreement, of 1000", 3),
}


def ablation(found: dict) -> str:
    """What the sampler's settings do, one at a time, and the yardsticks."""
    about, marks = found["protocol"], found["yardsticks"]
    named = [(_setting(row, about["autoregressive"]), row) for row in found["settings"]]
    named += [(f"*real pictures{f', {name}' * (name != 'real')}*", marks[name]) for name in marks if name != "chance"]
    named.append(("*chance*", marks["chance"]))
    columns = {metric: of for metric, of in ABLATION.items() if metric in marks["real"]}
    body = [[name, *(_mean(row, metric, places) for metric, (_, places) in columns.items())] for name, row in named]
    classes, sets = len(about["classes"]), len(about["seeds"])
    held_out = " that were held out" * about["held_out_by_name"]
    note = (
        f"\n{about['generator']}: {about['samples']:,} pictures of {classes} classes a row, in {sets} "
        f"set{'s' * (sets > 1)} of {about['reference']}. FD, precision and recall, of features of EfficientNet-Lite0, "
        f"are beside as many real pictures of the same classes{held_out}; {about['judge']} judges classes. Means over "
        f"sets{', and 95 % intervals of these means (Student)' * (sets > 1)}. One thing is changed at a time. "
        f"Computed in {about['dtype']}.\n"
    )
    return rows(["setting", *(head.format(classes=classes) for head, _ in columns.values())], body) + note


def _mean(row: dict, metric: str, places: int) -> str:
    """A mean over sets, and how far its interval reaches."""
    if metric not in row:
        return "-"
    interval = row.get("intervals", {}).get(metric)
    reach = f" ± {(interval[1] - interval[0]) / 2:.{places}f}" if interval else ""
    return f"{row[metric]:.{places}f}{reach}"


def _setting(row: dict, autoregressive: bool) -> str:
    if row["factor"] != "default":
        return f"{row['factor'].replace('_', ' ')} {setting(row[row['factor']])}"
    order = "" if row["order"] == "confidence" else f", {row['order']} order"
    how = "" if autoregressive else f"{row['schedule']}{order}, {row['steps']} steps, "
    nucleus = "" if row["top_p"] == 1 else f", top-p {setting(row['top_p'])}"
    return (
        f"{row['tokens']} tokens, {how}{row['guidance']} guidance {setting(row['guidance_scale'])}{nucleus} (default)"
    )


def compared(found: dict, read: Callable[[str], dict]) -> str:
    """Generators that were trained for as long, by the default rows of their ablations.

    Args:
        found: ``generators.json``.
        read: From the name of a result file to what it says.
    """
    body = []
    for name, about in found["generators"].items():
        row = next(row for row in read(about["ablation"])["settings"] if row["factor"] == "default")
        passes = row["tokens"] if about["autoregressive"] else row["steps"]
        nats = " / ".join(f"{value:.2f}" for value in about["entropy"].values())
        cells = [_mean(row, metric, places) for metric, places in (("fd", 1), ("class_agreement", 3), ("recall", 2))]
        body.append([f"{name}, {about['what']}", nats, str(passes), f"{row['milliseconds']:.0f}", *cells])
    heads = ["generator", "nats a token", "passes", "ms a picture", "FD", "class agreement", "recall"]
    return rows(heads, body) + f"\n{found['note']}\n"


def classes(found: dict) -> str:
    """The classes, and how many pictures taught each."""
    named = sorted(found["classes"].items())
    return "\n" + ", ".join(f"{name} ({count:,})" for name, count in named) + "\n"


def copies(found: dict) -> str:
    """How near samples come to training pictures."""
    low, high = found["interval"]
    usual, medians = found["share_of_held_out"], (found["median_ratio"], found["median_ratio_of_held_out"])
    return (
        f"\nOf {found['samples']:,} samples of {found['tokens']} tokens {found['share']:.1%} come suspiciously near "
        f"to one of {found['training']:,} training pictures (95 % interval {low:.1%} to {high:.1%}); of "
        f"{found['held_out']:,} held-out pictures through as many tokens {usual:.1%} do, by definition. What is "
        f"measured is the distance to the nearest beside that to the next ones; its median is {medians[0]:.2f} for "
        f"samples and {medians[1]:.2f} for held-out pictures.\n"
    )
