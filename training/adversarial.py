"""The adversarial loss of TiTok's second stage: a small patch discriminator, hinge losses, LeCam regularization, and
their training, or that of the critic of ``critic.py``, beside a decoder.

Widths and weights follow the published training code; Yu et al. 2024 give the losses in section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.metrics.lite0 import Lite0

from . import parallel
from .checkpoint import take
from .compute import to_device
from .critic import FeatureCritic
from .hyper import Adversarial

SLOPE = 0.1  # of every LeakyReLU
GRID = 16  # side of the grid of logits, at most
DECAY = 0.999


class Blur(nn.Module):
    """(B, C, H, W) -> (B, C, H // 2, W // 2): the binomial filter (1, 3, 3, 1), then every second pixel.

    Without it a discriminator sees the aliases of its own subsampling (Zhang 2019). Borders are mirrored, so that a
    constant stays one; both sides must be 2 or more.
    """

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=channels)


class Discriminator(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> one map (B, 1, h, w) of logits, high where the picture looks real; h, w <= 16.

    A 5x5 convolution to ``width`` channels; stages of 3x3 convolution, ``Blur``, norm and LeakyReLU; the maxima over a
    16x16 grid; a 1x1 convolution and a 5x5 one to a single map. The first stage keeps the width and each later one
    doubles it, so at width 128 the stages end in 128, 256 and 512 channels: that gives 1,909,889 parameters, the
    published 1.91 million (doubling in the first stage too, up to 512, would make it 4.12).

    Args:
        width: Channels at full resolution, a multiple of 32.
        stages: Halvings. The input needs sides of 2 to the power of this at least.
        most: Channels that no stage exceeds, a multiple of 32.
    """

    def __init__(self, width: int = 128, stages: int = 3, most: int = 512) -> None:
        super().__init__()
        if min(width, stages, most) < 1 or width % 32 or most % 32:
            raise ValueError(f"width {width} and most {most} must be multiples of 32, and stages {stages} positive")
        outputs = [min(width * 2**i, most) for i in range(stages)]
        inputs = [width, *outputs[:-1]]
        self.block_in = nn.Sequential(nn.Conv2d(3, width, 5, padding=2), nn.LeakyReLU(SLOPE))
        self.stages = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, 3, padding=1), Blur(), nn.GroupNorm(32, o), nn.LeakyReLU(SLOPE))
                for i, o in zip(inputs, outputs, strict=True)
            )
        )
        last = outputs[-1]
        self.to_logits = nn.Sequential(nn.Conv2d(last, last, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(last, 1, 5, padding=2))

    def forward(self, pixels: Tensor) -> list[Tensor]:
        x = self.stages(self.block_in(pixels * 2 - 1))
        grid = (min(GRID, x.shape[2]), min(GRID, x.shape[3]))
        return [self.to_logits(F.adaptive_max_pool2d(x, grid))]


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Logits of any shape -> what the discriminator minimises: mean relu(1 - real) + mean relu(1 + fake).

    Zero once real pictures score above 1 and decoded ones below -1 (Lim & Ye 2017, "Geometric GAN").
    """
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Logits of decoded pictures -> what the generator minimises: their negative mean (Lim & Ye 2017)."""
    return -fake.float().mean()


class LeCam(nn.Module):
    """Keeps a discriminator from running away from few pictures (Tseng et al. 2021, "Regularizing GANs under Limited
    Data"): logits on one side may not lie far beyond the running mean of those on the other.

    Penalises only one direction, as its authors' code does; their equation has plain squares. The running means are
    buffers, so they are in the state dict; several processes must hand ``update`` the means over all of them.

    Attributes:
        real, fake: () float32, moving averages of the mean logits, 0 at the start.
    """

    real: Tensor
    fake: Tensor

    def __init__(self, decay: float = DECAY) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Logits of any shape -> the regularizer, to be added to the discriminator's loss (published weight .001)."""
        above = F.relu(real.float() - self.fake).square().mean()
        below = F.relu(self.real - fake.float()).square().mean()
        return above + below

    @torch.no_grad()
    def update(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Move the running means towards those of a step, () each; after ``forward``, once a step."""
        self.real.lerp_(real_mean.float(), 1 - self.decay)
        self.fake.lerp_(fake_mean.float(), 1 - self.decay)


class Adversary:
    """A critic in training, and its adversarial loss for the decoder.

    Args:
        hyper: Rates and weights.
        decay: Weight decay of the critic.
        device: Where the critic is.
        autocast: Makes the context that its forward passes run in.
        lite0: The classifier whose features it sees; None: a discriminator of pixels, as published.

    Attributes:
        weight: Of its loss in the decoder's.
        start: Share of the run after which it takes part.
    """

    def __init__(
        self,
        hyper: Adversarial,
        decay: float,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager],
        lite0: Lite0 | None,
    ) -> None:
        critic = FeatureCritic(lite0) if lite0 else Discriminator(hyper.width)
        self.critic = to_device(critic, device)
        self.hyper, self.weight, self.start = hyper, hyper.weight, hyper.start
        self.lecam, self.autocast = LeCam().to(device), autocast
        self.trained = [p for p in self.critic.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=hyper.rate, betas=(0.9, 0.999), weight_decay=decay)
        self.forward = parallel.wrapped(self.critic)

    def learn(self, target: Tensor, decoded: Tensor, rate: float) -> dict[str, Tensor]:
        """One step of the critic on (B, 3, H, W) pairs, at ``rate`` times its peak learning rate."""
        some = self._some(decoded)
        with self.autocast():
            maps = self.forward(torch.cat([target[some], decoded[some].detach()]))
        pairs = [(real, fake) for real, fake in (logits.float().chunk(2) for logits in maps)]
        losses = torch.stack([hinge_discriminator(real, fake) for real, fake in pairs])
        lecam = torch.stack([self.lecam(real, fake) for real, fake in pairs])
        (losses.mean() + self.hyper.lecam * lecam.mean()).backward()
        real, fake = (torch.stack([logits.mean() for logits in side]).mean() for side in zip(*pairs, strict=True))
        self.lecam.update(parallel.mean(real), parallel.mean(fake))
        for group in self.optimizer.param_groups:
            group["lr"] = self.hyper.rate * rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"critic": losses.mean().detach(), "margin": (real - fake).detach()}

    def generator_loss(self, decoded: Tensor) -> Tensor:
        """The decoder's loss; its gradient reaches ``decoded`` alone."""
        for parameter in self.trained:
            parameter.requires_grad_(False)
        with self.autocast():
            maps = self.critic(decoded[self._some(decoded)])
        for parameter in self.trained:
            parameter.requires_grad_(True)
        return torch.stack([hinge_generator(logits) for logits in maps]).mean()

    def _some(self, decoded: Tensor) -> Tensor | slice:
        """Which pictures of a batch it sees: all, or a random ``share`` of them."""
        if self.hyper.share >= 1:
            return slice(None)
        return torch.randperm(len(decoded), device=decoded.device)[: max(1, round(len(decoded) * self.hyper.share))]

    def state_dict(self) -> dict[str, dict]:
        return {name: getattr(self, name).state_dict() for name in ("critic", "lecam", "optimizer")}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        for name, value in state.items():
            take(getattr(self, name), value)
