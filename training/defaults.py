"""Values of the hyper-parameters: as published for the published architectures, ours for short runs of our own.

Published figures: "An Image is Worth 32 Tokens" (Yu et al. 2024), section 4 and appendix, and the configurations that
its authors released. The one-stage recipe is that of its successor (TA-TiTok, Kim et al. 2025) without text.
Shares of a run are written as steps by steps, since some are no round numbers.
"""

from __future__ import annotations

from dataclasses import replace

from .hyper import (
    Adversarial,
    Augmentation,
    AutoencoderHyper,
    Codebook,
    DecoderHyper,
    Defaults,
    GeneratorHyper,
    Masking,
    Optimizer,
    PixelTerms,
    ProxyHyper,
    Schedule,
    TokenData,
)

# ---- as published -----------------------------------------------------------------------------------------------

_OPTIMIZER = Optimizer(
    batch=256,
    rate=1e-4,
    beta1=0.9,
    beta2=0.99,
    decay=1e-4,
    linear_rate=1e-4,
    muon_rate=0.0,
    ema=0.999,
    clip=1.0,
)
_SCHEDULE = Schedule(steps=1_000_000, warmup=10_000 / 1_000_000, warmup_steps=0, flat=0.0, floor=0.1)
_CODEBOOK = Codebook(continuous=0.0, restarts=0.0, quantizer=1.0, commitment=0.25)
_PIXELS = PixelTerms(
    pixels=1.0,
    lpips_weight=0.0,
    lpips_start=0.0,
    lpips_share=1.0,
    features=0.0,
    logits=0.0,
    jitter=0,
    grain=0.0,
    texture=0.0,
)
_ADVERSARY = Adversarial(weight=0.1, start=0.0, rate=1e-4, width=128, share=1.0, lecam=0.001)
_PLAIN_CROPS = Augmentation(zoom=1.0, stretch=0.0, colour=0.0, augment_until=0.0)
_MASKING = Masking(smoothing=0.1, unmasked=0.1, label_drop=0.1, dropout=0.1, part_balance=1.0, given_drop=0.0)

# ---- ours, for short runs ---------------------------------------------------------------------------------------

_SHORT_OPTIMIZER = Optimizer(
    batch=64,
    rate=1e-3,
    beta1=0.9,
    beta2=0.98,
    decay=0.01,
    linear_rate=1e-4,
    muon_rate=0.04,
    ema=0.995,
    clip=1.0,
)
_SHORT_SCHEDULE = Schedule(steps=20_000, warmup=0.02, warmup_steps=100, flat=0.0, floor=0.01)
_SHORT_CODEBOOK = replace(_CODEBOOK, continuous=0.03, restarts=0.8)
# Squared error counts ten times, so that it balances the quantizer's terms, which a short run cannot do with small.
_SHORT_PIXELS = PixelTerms(
    pixels=10.0,
    lpips_weight=0.5,
    lpips_start=0.5,
    lpips_share=0.25,
    features=0.25,
    logits=0.0,
    jitter=16,
    grain=0.0,
    texture=0.0,
)
_SHORT_ADVERSARY = Adversarial(weight=0.0, start=0.7, rate=2e-4, width=64, share=0.5, lecam=0.001)
_RANDOM_VIEWS = Augmentation(zoom=1.7, stretch=0.15, colour=0.05, augment_until=0.85)

# ---- stages -----------------------------------------------------------------------------------------------------

VQGAN = Defaults(
    published=AutoencoderHyper(
        optimizer=_OPTIMIZER,
        schedule=_SCHEDULE,
        pixel_loss=replace(_PIXELS, lpips_weight=0.1),
        adversary=replace(_ADVERSARY, start=0.02),
        augmentation=_PLAIN_CROPS,
        codebook=replace(_CODEBOOK, restarts=0.8),
    ),
    short=AutoencoderHyper(
        optimizer=replace(_SHORT_OPTIMIZER, muon_rate=0.02),
        schedule=_SHORT_SCHEDULE,
        pixel_loss=_SHORT_PIXELS,
        adversary=_SHORT_ADVERSARY,
        augmentation=_RANDOM_VIEWS,
        codebook=replace(_SHORT_CODEBOOK, continuous=0.1),
    ),
)
STAGE1 = Defaults(
    published=ProxyHyper(optimizer=_OPTIMIZER, schedule=_SCHEDULE, codebook=_CODEBOOK, augmentation=_PLAIN_CROPS),
    short=ProxyHyper(
        optimizer=_SHORT_OPTIMIZER,
        schedule=_SHORT_SCHEDULE,
        codebook=_SHORT_CODEBOOK,
        augmentation=_RANDOM_VIEWS,
    ),
)
STAGE2 = Defaults(
    published=DecoderHyper(
        optimizer=replace(_OPTIMIZER, beta2=0.999),
        schedule=replace(_SCHEDULE, steps=500_000, warmup=5_000 / 500_000),
        pixel_loss=replace(_PIXELS, logits=0.1),
        adversary=replace(_ADVERSARY, weight=0.01, start=20_000 / 500_000),
        augmentation=_PLAIN_CROPS,
    ),
    short=DecoderHyper(
        optimizer=replace(_SHORT_OPTIMIZER, rate=5e-4, muon_rate=0.01),
        schedule=_SHORT_SCHEDULE,
        pixel_loss=replace(_SHORT_PIXELS, lpips_start=0.0),
        adversary=replace(_SHORT_ADVERSARY, weight=0.002, start=0.2),
        augmentation=_RANDOM_VIEWS,
    ),
)
SINGLE = Defaults(
    published=AutoencoderHyper(
        optimizer=replace(_OPTIMIZER, beta2=0.999),
        schedule=replace(_SCHEDULE, steps=650_000, warmup=10_000 / 650_000),
        pixel_loss=replace(_PIXELS, lpips_weight=1.0, logits=0.1),
        adversary=replace(_ADVERSARY, start=200_000 / 650_000),
        augmentation=_PLAIN_CROPS,
        codebook=replace(_CODEBOOK, restarts=0.8),  # where TA-TiTok pulls unused codes to features (CVQ-VAE)
    ),
    short=AutoencoderHyper(
        optimizer=_SHORT_OPTIMIZER,
        schedule=replace(_SHORT_SCHEDULE, flat=0.55),
        pixel_loss=_SHORT_PIXELS,
        adversary=_SHORT_ADVERSARY,
        augmentation=_RANDOM_VIEWS,
        codebook=_SHORT_CODEBOOK,
    ),
)
GENERATOR = Defaults(
    published=GeneratorHyper(
        optimizer=replace(_OPTIMIZER, batch=2048, rate=2e-4, beta2=0.96, decay=0.03),
        schedule=replace(_SCHEDULE, steps=500_000, warmup=0.02, floor=0.05),
        masking=_MASKING,
        # The middle and its mirror image: all there is.
        data=TokenData(variants=2, shift=0.0, zoom=0.0, hold_out=0, patience=0),
    ),
    short=GeneratorHyper(
        optimizer=replace(_SHORT_OPTIMIZER, batch=256, muon_rate=0.02, decay=0.03),
        schedule=_SHORT_SCHEDULE,
        masking=replace(_MASKING, smoothing=0.0, unmasked=0.0, given_drop=0.1),
        data=TokenData(variants=8, shift=1.0, zoom=0.2, hold_out=20, patience=5),
    ),
)
