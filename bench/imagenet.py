"""Which classes of ImageNet-1k a generator's classes may be taken for, chosen by name.

A classifier of ImageNet knows no people, portrait, painting, city, sunset, sky, night, forest, desert, field, river,
snow or giraffe: such classes have no list, and top-1 agreement leaves them out. Lists share something only where
classes do: rooms with houses, spaniels with dogs, tench with fish.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

CLASSES = 1000

IMAGENET = {
    "bird": "7-24 80-100 127-146",
    "boat": "403 472 484 510 536 554 576 625 628 724 780 814 871 913-914",  # ships, and docks
    "butterfly": "321-326",
    "car": "436 468 479 511 581 609 627 656 661 717 751 817",  # and their wheels and grilles
    "cassette-player": "482",
    "cat": "281-285",
    "chain-saw": "491",
    "church": "497",
    # garments, shoes, hats, ties, and fabrics
    "clothing": "399-400 411 445 457 459 474 501-502 514-515 568 578 601 608 610 614 617 630 638-639 652 655 658 689 "
    "697 735 770 774-775 806 808 824 834 841-842 869 885 887 906 911",
    "cow": "345-346",
    "dog": "151-216 218-268",  # breeds, but for the one that is a class of its own
    "elephant": "101 385-386",
    "english-springer": "217",
    "fish": "0-6 389-397",  # and sharks and rays
    "flower": "883 985-986",  # of which there are two, and vases
    "food": "415 504 567 659 809 909 923-935 959-969",  # dishes, drinks, and their vessels
    "french-horn": "566",
    "garbage-truck": "569",
    "gas-pump": "571",
    "golf-ball": "574",
    "grocery": "478 509 582 692 728 737 790-791 860 886 898 936-957 987 998",  # vegetables, fruit, shops
    "guitar": "402 546",
    "horse": "339",
    # fronts, rooms, and furniture that fills a room
    "house": "421 425 431 435 449 453 493 495 516 520 526 532 534 548 556 559 564 580 598 619 648 651 660 669 698 706 "
    "721 729 736 750 760 762 765 789 794 799 827 831 846 851 853 857-858 861 876 894 896-897 904-905",
    "lake": "975",
    "monkey": "365-382",  # and apes
    "mountain": "970 972 979-980",
    # what lies and stands on desks
    "office": "412 418 446 487 508 527-528 563 620 623 664 673 681 709-710 713 742 767 769 782 810 921",
    "parachute": "701",
    "room": "421 431 435 453 493 495 516 520 526 532 534 548 556 559 564 598 619 648 651 669 721 729 736 750 760 762 "
    "765 789 794 799 827 831 846 851 857 861 876 894 896-897 904-905",
    "sea": "460 973 976-978",
    "sheep": "348-349",
    "spaniel": "215-221",
    # balls, players, apparatus, helmets
    "sport": "416 422 429-430 433 518 543 560 602 702 722 746-747 752 768 795 805 852 890 981",
    "tench": "0",
}


def class_masks(names: Sequence[str]) -> Tensor:
    """(C, 1000) bool: which classes of ImageNet each of ours may be taken for, none where there is no list. A whole
    number below 1000 is its own."""
    masks = torch.zeros(len(names), CLASSES, dtype=torch.bool)
    for mask, name in zip(masks, names, strict=True):
        own = name if name.isdecimal() and int(name) < CLASSES else ""
        for span in IMAGENET.get(name, own).split():
            first, _, last = span.partition("-")
            mask[int(first) : int(last or first) + 1] = True
    return masks
