"""Metrics of sets of features, and of tokens, against values by hand and by formula."""

import math

import numpy as np
import pytest
import torch

from titokcodec.metrics import Gaussian, codebook_usage, frechet_distance, inception_score, precision_recall


def exact(mean, deviations):
    """2d + 1 points whose mean and covariance are just those: plus and minus along each axis, and one in the middle."""
    d = len(deviations)
    steps = np.diag(deviations) * math.sqrt(d)  # 2 d steps^2 / (2d + 1 - 1) = deviation^2
    return torch.tensor(np.concatenate([steps, -steps, np.zeros((1, d))]) + mean, dtype=torch.float32)


def test_frechet_distance_of_axis_aligned_gaussians():
    one, other = np.array([1.0, 2, 3, 0]), np.array([2.0, 2, 0.5, 1])
    a, b = exact(0.0, one), exact(np.array([1.0, 0, -2, 0]), other)
    torch.testing.assert_close(torch.cov(a.T), torch.diag(torch.tensor(one, dtype=torch.float32) ** 2))
    assert frechet_distance(a, b) == pytest.approx(5 + ((one - other) ** 2).sum(), rel=1e-5)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    """In the plane tr (AB)^(1/2) = (tr AB + 2 (det AB)^(1/2))^(1/2), by Cayley and Hamilton."""
    torch.manual_seed(0)
    a = torch.randn(50, 2, dtype=torch.float64) @ torch.tensor([[2.0, 1], [0, 1]], dtype=torch.float64)
    b = torch.randn(30, 2, dtype=torch.float64) @ torch.tensor([[1.0, -1], [0, 3]], dtype=torch.float64) + 1
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    product = ca @ cb
    root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(ca) + np.trace(cb) - 2 * root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_a_set_may_be_given_by_its_mean_and_covariance():
    torch.manual_seed(0)
    a, b = torch.randn(40, 6) * 2 + 1, torch.randn(30, 6) @ torch.randn(6, 6)
    statistics = Gaussian(b.mean(0).double(), torch.cov(b.T.double()))
    assert frechet_distance(a, statistics) == pytest.approx(frechet_distance(a, b), rel=1e-6)
    flat = Gaussian(torch.zeros(6), torch.zeros(6, 6))  # no rank at all
    expected = a.mean(0).square().sum().item() + torch.cov(a.T).trace().item()
    assert frechet_distance(a, flat) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="features"):
        frechet_distance(a, Gaussian(torch.zeros(5), torch.zeros(5, 5)))


def test_frechet_distance_of_fewer_rows_than_columns():
    """Zeros on the other 300 axes, and any rotation, change nothing: and no root of a noisy zero gets in."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 40, 5, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(305, 305, dtype=torch.float64)).Q
    wide = [torch.cat([x, x.new_zeros(40, 300)], dim=1) @ rotation for x in (2 * a, b + 0.5)]
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(2 * a, b + 0.5), rel=1e-9)
    assert frechet_distance(wide[0][:20], wide[0][:20]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_computed_in_float64():
    """Features far from zero and near each other, whose squares float32 could not tell apart."""
    a = torch.tensor([[4096.0], [4096.5], [4097.0], [4097.5]])
    # Variances 5/12 and, of twice the spread, 5/3: (mean difference)^2 + (difference of deviations)^2.
    b = 2 * a - 4096
    expected = 0.75**2 + (math.sqrt(5 / 3) - math.sqrt(5 / 12)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5,))])
def test_frechet_distance_of_what_has_no_covariance(shapes):
    with pytest.raises(ValueError, match="two sets of 2 features or more expected"):
        frechet_distance(*(torch.zeros(shape) for shape in shapes))


def test_inception_score_by_hand():
    """Certain of four classes in turn: 4. Of one class always, or of none: 1."""
    certain = 1000 * torch.eye(4).repeat(5, 1)
    assert inception_score(certain, splits=5) == pytest.approx((4, 0))
    assert inception_score(certain[:1].repeat(20, 1)) == pytest.approx((1, 0))
    assert inception_score(torch.zeros(20, 7)) == pytest.approx((1, 0))
    # A part that knows (score 2) and a part that does not (1); mean 1.5, deviation 0.5.
    mixed = torch.cat([1000 * torch.eye(2).repeat(2, 1), torch.zeros(4, 2)])
    assert inception_score(mixed, splits=2) == pytest.approx((1.5, 0.5))
    # p = (3/4, 1/4) and (1/4, 3/4) around (1/2, 1/2).
    half = torch.tensor([[0.75, 0.25], [0.25, 0.75]]).log()
    assert inception_score(half, splits=1)[0] == pytest.approx(2 * 0.75**0.75 * 0.25**0.25)
    with pytest.raises(ValueError, match="9 rows cannot be split into 10"):
        inception_score(torch.zeros(9, 3), splits=10)


def test_inception_score_of_pictures_sorted_by_class():
    """All in one part by default: 20 classes are 20, where ten parts in order would see two each."""
    by_class = 1000 * torch.eye(20).repeat_interleave(6, dim=0)
    assert inception_score(by_class) == pytest.approx((20, 0))
    assert inception_score(by_class, splits=10) == pytest.approx((2, 0))
    assert inception_score(by_class[torch.randperm(120)]) == pytest.approx((20, 0))
    # 1, 2, 3, ... rows of each class: the exponential of the entropy of their shares.
    uneven = torch.cat([1000 * torch.eye(4)[k : k + 1].repeat(k + 1, 1) for k in range(4)])
    assert inception_score(uneven)[0] == pytest.approx(math.prod((10 / k) ** (k / 10) for k in (1, 2, 3, 4)))


def on_a_line(*places):
    return torch.tensor(places, dtype=torch.float32)[:, None]


def test_precision_and_recall_by_hand():
    """With one neighbour, balls around 0 and 1 reach 1 far, that around 10 reaches 9."""
    real = on_a_line(0, 1, 10)
    generated = on_a_line(-1, -1.1, 19, 19.5, 2)
    # -1, 19 and 2 are just inside (of 0, of 10, of 1 and 10), the others are not. Generated balls: .1, .1, .5, .5, and
    # 2 reaches 3 far, to -1: over 0 and 1, not to 10.
    assert precision_recall(real, generated, 1) == pytest.approx((3 / 5, 2 / 3))
    assert precision_recall(generated, real, 1) == pytest.approx((2 / 3, 3 / 5))


def test_precision_and_recall_with_three_neighbours():
    """A corner of the unit square has two neighbours at 1 and the third at the square root of 2."""
    square = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    generated = torch.tensor([[2.4, 0], [2.42, 0], [0.5, 0.5], [-1, -1]])  # 1.4, 1.42, inside, and just the root of 2
    assert precision_recall(square, generated)[0] == 3 / 4
    assert precision_recall(square, square) == (1, 1)
    assert precision_recall(square, square + 9) == (0, 0)
    assert precision_recall(square, square[:1].repeat(5, 1)) == (1, 1 / 4), "one picture again and again"


def test_precision_and_recall_go_part_by_part(monkeypatch):
    torch.manual_seed(0)
    real, generated = torch.randn(30, 4), 1.3 * torch.randn(40, 4)
    found = precision_recall(real, generated)
    distances = lambda a, b: ((a[:, None] - b[None]) ** 2).sum(2).sqrt()  # noqa: E731
    for points, centres, share in ((generated, real, found[0]), (real, generated, found[1])):
        radii = distances(centres, centres).sort(1).values[:, 3]
        assert share == pytest.approx((distances(points, centres) <= radii).any(1).float().mean().item())
    assert 0.2 < found[0] < 1
    monkeypatch.setattr("titokcodec.metrics.distributions._ROWS", 7)
    assert precision_recall(real, generated) == found


@pytest.mark.parametrize("shapes", [((3, 2), (9, 2)), ((9, 2), (3, 2)), ((9, 2), (9, 3)), ((9,), (9,))])
def test_precision_and_recall_of_too_little(shapes):
    with pytest.raises(ValueError, match="two sets of 4 features or more expected"):
        precision_recall(*(torch.zeros(shape) for shape in shapes))


def test_codebook_usage_over_all_positions_and_at_each():
    tokens = torch.tensor([[0, 5, 3], [1, 5, 3], [2, 5, 2], [3, 5, 2]])
    found = codebook_usage(tokens, 8)
    assert (found["usage"], found["distinct"]) == (5 / 8, 5)
    assert found["usage_by_position"] == [4 / 8, 1 / 8, 2 / 8]
    assert found["distinct_by_position"] == [4, 1, 2]
    assert found["entropy_by_position"] == pytest.approx([2, 0, 1])
    shares = [1 / 12, 1 / 12, 3 / 12, 3 / 12, 4 / 12]
    assert found["entropy"] == pytest.approx(-sum(p * math.log2(p) for p in shares))
