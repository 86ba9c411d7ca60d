"""Metrics against values that were found another way: by hand, by formula, by loops."""

import ast
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from titokcodec.metrics import grain, ms_ssim, psnr, ssim


def test_the_package_waits_for_torch_until_a_metric_is_asked_for():
    code = """
import sys
import titokcodec.metrics as metrics
assert {*metrics.__all__} <= {*dir(metrics)} and "torch" not in sys.modules
from titokcodec.metrics import *
assert "torch" in sys.modules and callable(LPIPS) and callable(psnr)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_library_needs_neither_training_nor_benchmarks():
    """Which an installed one does not have."""
    for path in (ROOT / "titokcodec").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"training", "bench", "tests"}, path


# ---- pictures -------------------------------------------------------------------------------------------------


def test_psnr_is_of_each_picture():
    a = torch.zeros(3, 3, 4, 4)
    b = a.clone()
    b[0] += 0.5
    b[1, :, 0, 0] += 1  # one pixel in sixteen
    assert psnr(a, b).tolist() == pytest.approx([-20 * math.log10(0.5), 10 * math.log10(16), 100])


def slow_ssim(a, b):
    """Wang et al. 2004, equations 13 to 17, one window after another."""
    line = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    window = np.outer(line, line) / sum(line) ** 2
    found = []
    for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        for top in range(x.shape[0] - 10):
            for left in range(x.shape[1] - 10):
                p, q = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                found.append((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return np.mean(found)


def test_ssim_equals_the_loop_over_windows():
    random = np.random.default_rng(0)
    a = random.random((2, 3, 15, 18), np.float32)
    b = (a + random.normal(0, 0.1, a.shape)).clip(0, 1).astype(np.float32)
    b[1] = 1 - b[1]
    found = ssim(torch.from_numpy(a), torch.from_numpy(b)).tolist()
    assert found == pytest.approx([slow_ssim(*pair) for pair in zip(a, b, strict=True)], abs=1e-5)
    assert found[0] > 0.5 > 0 > found[1]


def test_ssim_of_equal_flat_and_small_pictures():
    a = torch.rand(2, 3, 11, 11)
    assert ssim(a, a).tolist() == pytest.approx([1, 1])
    dark, light = torch.full((1, 3, 16, 16), 0.25), torch.full((1, 3, 16, 16), 0.75)
    assert ssim(dark, light).item() == pytest.approx((2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4), abs=5e-5)
    with pytest.raises(ValueError, match="11 x 11 pixels, these are 12 x 10"):
        ssim(torch.zeros(1, 3, 10, 12), torch.zeros(1, 3, 10, 12))


def plain_ms_ssim(a, b):
    """Wang, Simoncelli and Bovik 2003, equation 7, for two (H, W) arrays: every window cut out, in float64."""
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    product = 1.0
    for scale, power in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            a, b = (x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2] for x in (a, b))
            a, b = ((x[0::2, 0::2] + x[1::2, 0::2] + x[0::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
        p, q = (np.lib.stride_tricks.sliding_window_view(x, (11, 11)) for x in (a, b))
        mp, mq = ((x * window).sum((2, 3)) for x in (p, q))
        vp, vq = (((x - m[..., None, None]) ** 2 * window).sum((2, 3)) for x, m in ((p, mp), (q, mq)))
        cov = ((p - mp[..., None, None]) * (q - mq[..., None, None]) * window).sum((2, 3))
        term = (2 * cov + 9e-4) / (vp + vq + 9e-4)
        if scale == 4:
            term = term * (2 * mp * mq + 1e-4) / (mp**2 + mq**2 + 1e-4)
        product *= max(term.mean(), 0) ** power
    return product


def test_ms_ssim_equals_the_plain_formula():
    random = np.random.default_rng(1)
    a = np.kron(random.random((3, 22, 23)), np.ones((8, 8)))  # 176 x 184: the smallest height
    b = (0.8 * a + random.normal(0.1, 0.1, a.shape)).clip(0, 1)
    found = ms_ssim(*(torch.from_numpy(x[None]).float() for x in (a, b))).item()
    assert found == pytest.approx(np.mean([plain_ms_ssim(p, q) for p, q in zip(a, b, strict=True)]), abs=1e-5)
    assert 0.5 < found < 0.99


def test_ms_ssim_is_one_for_equal_pictures_and_falls_with_noise():
    torch.manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), (192, 192), mode="bicubic").clamp(0, 1)
    noise = torch.randn_like(a)
    assert ms_ssim(a, a).tolist() == pytest.approx([1, 1], abs=1e-5)
    found = [ms_ssim(a, (a + level * noise).clamp(0, 1)) for level in (0.01, 0.05, 0.2)]
    assert (found[0] < 1).all() and (found[0] > found[1]).all() and (found[1] > found[2]).all()


def test_ms_ssim_of_flat_negative_and_small_pictures():
    dark, light = torch.full((1, 3, 176, 176), 0.25), torch.full((1, 3, 176, 176), 0.75)
    luminance = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)  # the rest is 1 where nothing varies
    assert ms_ssim(dark, light).item() == pytest.approx(luminance**0.1333, abs=1e-4)
    torch.manual_seed(0)
    a = torch.rand(1, 3, 176, 176)
    assert ms_ssim(a, 1 - a).item() == 0, "a negative has contrary structure, which counts as none"
    with pytest.raises(ValueError, match="176 x 176 pixels, these are 180 x 175"):
        ms_ssim(torch.zeros(1, 3, 175, 180), torch.zeros(1, 3, 175, 180))


def plain_grain(a, period):
    """One (3, H, W) array: cell after cell, in float64."""
    line = np.exp(-((np.arange(9) - 4.0) ** 2) / 8)
    window, detail = np.outer(line, line) / line.sum() ** 2, np.zeros(a.shape[1:])
    for channel in 255 * a.astype(np.float64):
        wide = np.pad(channel, 4, mode="reflect")
        for y, x in np.ndindex(channel.shape):
            detail[y, x] += (channel[y, x] - (window * wide[y : y + 9, x : x + 9]).sum()) ** 2
    corners = product(*(range(0, side - period + 1, period) for side in detail.shape))
    cells = [detail[y : y + period, x : x + period] for y, x in corners]
    cells = np.stack([cell / (cell.mean() + 1) for cell in cells])
    return cells.mean(0).var(ddof=1) - cells.var(0, ddof=1).mean() / len(cells)


def test_grain_equals_the_loop_over_cells():
    a = np.random.default_rng(0).random((2, 3, 26, 17), np.float32)
    a[1, :, 3::8, 5::8] = 0
    found = grain(torch.from_numpy(a), 8).tolist()
    assert found == pytest.approx([plain_grain(one, 8) for one in a], rel=1e-4)
    assert found[1] > 0.04 > abs(found[0])


@pytest.mark.parametrize("period", [8, 16, 32])
def test_grain_sees_marks_of_any_sign_and_colour_on_its_grid_alone(period):
    torch.manual_seed(0)
    noise = torch.rand(2, 3, 128, 128) * 0.1 + 0.4
    marked, scattered = noise.clone(), noise.clone()
    signs = torch.randint(2, marked[..., ::period, ::period].shape) - 0.5
    marked[..., ::period, ::period] += 0.6 * signs
    y, x = torch.randint(128, (2, 128 // period, 128 // period))
    scattered[..., y, x] += 0.6 * signs
    assert (grain(noise, period).abs() < 0.03).all() and (grain(scattered, period).abs() < 0.2).all()
    assert (grain(marked, period) > 1).all()


def test_grain_of_flat_and_small_pictures():
    flat = torch.full((1, 3, 64, 64), 0.25, requires_grad=True)
    found = grain(flat, 32)
    found.sum().backward()
    assert found.item() == pytest.approx(0, abs=1e-6) and flat.grad.isfinite().all()
    with pytest.raises(ValueError, match="grain at 32 needs pictures of 64 x 64 pixels, these are 80 x 63"):
        grain(torch.zeros(1, 3, 63, 80), 32)


def test_grain_is_measured_in_float32():
    a = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert grain(a, 8).item() == pytest.approx(plain_grain(a[0].numpy(), 8), rel=1e-4)
