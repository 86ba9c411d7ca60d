"""Whether pictures show the class that they should, by hand; and which real pictures are taken for what."""

import pytest
import torch

from bench.agreement import ClassMeans, class_agreement, shrunk_covariance, top1_agreement
from bench.imagenet import IMAGENET, class_masks
from bench.intervals import student
from bench.labelled import Chosen, Listing, deal
from tests.conftest import DATA
from titokcodec.errors import TitokError
from training.labels import labels_of

# ---- ImageNet's classes -----------------------------------------------------------------------------------------


def test_lists_share_something_only_where_classes_do():
    names = tuple(IMAGENET)
    masks = class_masks(names)
    assert masks.any(1).all() and masks[names.index("dog")].sum() == 117
    assert masks[names.index("cat")].nonzero().flatten().tolist() == [281, 282, 283, 284, 285]
    common = {
        (one, other)
        for one, a in zip(names, masks, strict=True)
        for other, b in zip(names, masks, strict=True)
        if one < other and (a & b).any()
    }
    assert common == {("house", "room"), ("dog", "spaniel"), ("english-springer", "spaniel"), ("fish", "tench")}


def test_classes_that_imagenet_lacks_have_no_list():
    masks = class_masks(("0", "sunset", "999", "1000", "unicorn"))
    assert masks.nonzero().tolist() == [[0, 0], [2, 999]], "ImageNet's own numbers, and nothing else"


MASKS = torch.tensor([[True, True, False, False], [False, False, True, False], [False] * 4])  # the third has no list


def test_top1_agreement_by_hand():
    top, labels = torch.tensor([1, 0, 3, 2, 0]), torch.tensor([0, 0, 0, 1, 2])
    assert top1_agreement(top, labels, MASKS) == {
        "top1_agreement": pytest.approx((2 / 3 + 1) / 2),
        "top1_by_chance": pytest.approx((2 / 3 + 0 + 0 + 1) / 4),  # a mean over labels, for either class's pictures
    }
    assert top1_agreement(top, torch.full((5,), 2), MASKS) == {}


def test_classes_count_alike():
    assert class_agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])) == pytest.approx((2 / 3 + 1) / 2)
    assert class_agreement(torch.zeros(9, dtype=torch.int64), torch.tensor([0] * 8 + [1])) == pytest.approx(1 / 2)


# ---- nearest class means ----------------------------------------------------------------------------------------


def test_covariances_are_shrunk_as_published():
    """Ledoit and Wolf 2004, sections 2 and 3, term by term."""
    torch.manual_seed(0)
    x = torch.randn(7, 4, dtype=torch.float64) * torch.tensor([1, 2, 3, 4.0])
    sample = sum(torch.outer(row, row) for row in x) / 7
    m = sample.trace() / 4
    d2 = (sample - m * torch.eye(4)).square().sum() / 4
    b2 = min(sum((torch.outer(row, row) - sample).square().sum() / 4 for row in x) / 49, d2)
    expected = b2 / d2 * m * torch.eye(4) + (1 - b2 / d2) * sample
    torch.testing.assert_close(shrunk_covariance(x), expected)
    assert torch.linalg.cond(shrunk_covariance(x[:2])) < 1e6, "fewer vectors than numbers in each"


def test_the_nearest_class_is_so_where_features_vary_little():
    """Two classes differ in one feature by less than another, of no meaning, varies."""
    torch.manual_seed(0)
    labels = torch.arange(2000) % 2
    features = torch.randn(2000, 2) * torch.tensor([6.0, 0.2])
    features[:, 1] += labels
    means = ClassMeans.fit(features[:1000], labels[:1000], 2)
    assert class_agreement(means.predict(features[1000:]), labels[1000:]) > 0.9
    apart = torch.cdist(features[1000:], torch.stack([features[:1000][labels[:1000] == c].mean(0) for c in (0, 1)]))
    assert class_agreement(apart.argmin(1), labels[1000:]) < 0.7, "plain distances do not show it"


def test_shuffled_labels_agree_by_chance():
    torch.manual_seed(0)
    features, labels = torch.randn(300, 40), torch.arange(300) % 3
    means = ClassMeans.fit(features[:150], labels[:150], 3)
    assert class_agreement(means.predict(features[150:]), labels[150:]) == pytest.approx(1 / 3, abs=0.12)


def test_a_class_of_one_picture_has_no_mean():
    with pytest.raises(TitokError, match="fewer than two pictures"):
        ClassMeans.fit(torch.rand(3, 2), torch.tensor([0, 0, 1]), 2)


def test_the_interval_of_a_few_seeds():
    low, high = student([1, 2, 3, 4])
    assert (low + high) / 2 == pytest.approx(2.5)
    assert (high - low) / 2 == pytest.approx(3.1824 * (5 / 3) ** 0.5 / 2, rel=1e-4)
    assert student([5]) is None and student([2, 2]) == (2, 2)


# ---- real pictures ----------------------------------------------------------------------------------------------

NAMES = ("cat", "dog")


def test_roles_do_not_overlap():
    labels = torch.tensor([0] * 20 + [-1] * 5 + [1] * 11)
    roles = deal(labels, NAMES, None, 3, 4, 5, seed=0)
    assert labels[roles.reference].tolist() == [0] * 4 + [1] * 2, "two dogs are left to fit"
    assert [labels[own].tolist() for own in roles.sets] == [[0] * 4 + [1] * 2] * 3
    assert labels[roles.fit].tolist() == [0] * 4 + [1] * 3
    assert len(set(roles.all.tolist())) == len(roles.all)
    assert not roles.reference.equal(deal(labels, NAMES, None, 3, 4, 5, seed=1).reference)


def test_the_reference_is_what_was_held_out():
    labels = torch.tensor([0] * 20 + [1] * 20)
    held = torch.arange(40) % 5 == 0
    roles = deal(labels, NAMES, held, 3, 10, 2, seed=0)
    assert sorted(roles.reference.tolist()) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert not held[torch.cat([*roles.sets, roles.fit])].any()
    assert [labels[own].tolist() for own in roles.sets] == [[0] * 4 + [1] * 4] * 3
    assert labels[roles.fit].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "held", "message"),
    [
        ([0] * 9 + [1] * 4, None, "too few pictures of dog, 4: 3 sets"),
        ([0] * 9 + [1] * 9, [4], "too few pictures of dog, 9, 0 of them held out"),
        ([0] * 6 + [1] * 6, None, "2 pictures are too few to compare with"),
    ],
)
def test_too_few_pictures_are_one_line(labels, held, message):
    held = None if held is None else torch.tensor([number in held for number in range(len(labels))])
    with pytest.raises(TitokError, match=message) as caught:
        deal(torch.tensor(labels), NAMES, held, 3, 4, 4, seed=0)
    assert "\n" not in str(caught.value)


def test_only_chosen_pictures_are_decoded(tmp_path):
    for name, photo in (("cat/a", "chelsea"), ("cat/b", "astronaut"), ("dog/a", "coffee")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jpg").write_bytes((DATA / f"{photo}.jpg").read_bytes())
    (tmp_path / "dog/broken.jpg").write_bytes(b"no picture")
    listing = Listing.of([tmp_path])
    assert listing.keys == ["cat/a", "cat/b", "dog/a", "dog/broken"]
    assert labels_of(listing, None).numbers(NAMES).tolist() == [0, 0, 1, 1]
    chosen = Chosen(listing, torch.tensor([2, 0]), [tmp_path], 32, "cpu")
    assert len(chosen.pictures) == 2
    one, other = chosen.crops(torch.tensor([2, 0]), 1)
    assert one.shape == (1, 3, 32, 32)
    again = torch.cat([*chosen.crops(torch.tensor([0, 2]), 2)])
    assert again[0].equal(other[0]) and again[1].equal(one[0]) and not one.equal(other)
    with pytest.raises(TitokError, match="dog/broken cannot be read as a picture: take it out"):
        Chosen(listing, torch.tensor([0, 3]), [tmp_path], 32, "cpu")
    (tmp_path / "none").mkdir()
    with pytest.raises(TitokError, match="no pictures in"):
        Listing.of([tmp_path / "none"])
