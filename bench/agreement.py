"""How often EfficientNet-Lite0 recognises the class that a generated picture should show.

``top1_agreement``: Lite0's most probable class of 1000 is one of those that ``IMAGENET`` lists for the requested class.
Blurred pictures nearly always fail that, so there is ``class_agreement`` besides, over the generator's own classes:
Lite0's probabilities are summed over each class's list and divided by the mean sum over the set; the largest counts.
Without the division, long lists (117 breeds of dogs) and whatever blur resembles would always win. The mean is of the
set itself with all classes weighed alike: each set holds every class, so none should be more probable over all.

Random labels agree once in as many times as there are classes by ``class_agreement``, and as often as
``top1_by_chance`` by ``top1_agreement``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from titokcodec import TitokError
from titokcodec.metrics.efficientnet import Lite0

# The classes of ImageNet-1k that each of ours may be taken for, chosen by name. No two lists share one.
IMAGENET = {
    "cassette-player": "482",
    "cat": "281-285",
    "chain-saw": "491",
    "church": "497",
    # garments, shoes, hats, ties, and fabrics
    "clothing": "399-400 411 445 457 459 474 501-502 514-515 568 578 601 608 610 614 617 630 638-639 652 655 658 689 "
    "697 735 770 774-775 806 808 824 834 841-842 869 885 887 906 911",
    "dog": "151-216 218-268",  # breeds, but for the one that is a class of its own
    "english-springer": "217",
    "food": "415 504 567 659 809 909 923-935 959-969",  # dishes, drinks, and their vessels
    "french-horn": "566",
    "garbage-truck": "569",
    "gas-pump": "571",
    "golf-ball": "574",
    "grocery": "478 509 582 692 728 737 790-791 860 886 898 936-957 987 998",  # vegetables, fruit, shops
    # fronts, rooms, and furniture that fills a room
    "house": "421 425 431 435 449 453 493 495 516 520 526 532 534 548 556 559 564 580 598 619 648 651 660 669 698 706 "
    "721 729 736 750 760 762 765 789 794 799 827 831 846 851 853 857-858 861 876 894 896-897 904-905",
    "parachute": "701",
    "tench": "0",
}


def class_masks(names: Sequence[str]) -> Tensor:
    """(C, 1000) bool: which of Lite0's classes each of ours may be taken for. A whole number is its own.

    Raises:
        TitokError: a name is neither in ``IMAGENET`` nor a number below 1000.
    """
    numbers = {str(number) for number in range(1000)}
    unknown = [name for name in names if name not in IMAGENET and name not in numbers]
    if unknown:
        raise TitokError(f"no ImageNet classes are known for {', '.join(unknown)}: list them in bench/agreement.py")
    masks = torch.zeros(len(names), 1000, dtype=torch.bool)
    for mask, name in zip(masks, names, strict=True):
        for span in IMAGENET.get(name, name).split():
            first, _, last = span.partition("-")
            mask[int(first) : int(last or first) + 1] = True
    return masks


@dataclass(frozen=True)
class Predictions:
    """Lite0's output for a set of pictures, on the CPU.

    Attributes:
        features: (n, 1280) float32.
        probabilities: (n, 1000) float64, of its classes.
        labels: (n,) int64, the class that each picture should show.
    """

    features: Tensor
    probabilities: Tensor
    labels: Tensor


@torch.no_grad()
def predict(lite0: Lite0, batches: Iterable[Tensor], labels: Tensor) -> Predictions:
    """Predictions for batches of (B, 3, H, W) in [0, 1], with pixels rounded to 8 bits, and their (n,) labels."""
    features = [lite0.pooled((pixels * 255).round() / 255) for pixels in batches]
    probabilities = [lite0.classify(part).double().softmax(1).cpu() for part in features]
    return Predictions(torch.cat(features).cpu(), torch.cat(probabilities), labels)


def agreement(predictions: Predictions, masks: Tensor) -> dict[str, float]:
    """``top1_agreement``, ``top1_by_chance`` and ``class_agreement`` in [0, 1], means over classes; see above."""
    labels, probabilities = predictions.labels, predictions.probabilities
    weights = (1 / torch.bincount(labels, minlength=len(masks)).clamp_min(1).double())[labels]
    weights = weights / weights.sum()  # every class counts alike, however many pictures it has
    top = probabilities.argmax(1)
    summed = probabilities @ masks.double().T
    likeliest = (summed / (weights @ summed).clamp_min(1e-30)).argmax(1)
    return {
        "top1_agreement": float(weights @ masks[labels, top].double()),
        "top1_by_chance": float(weights @ masks[:, top].double().mean(0)),
        "class_agreement": float(weights @ (likeliest == labels).double()),
    }
