"""The adversarial loss of TiTok's second stage: a small patch discriminator, hinge losses, LeCam regularization, and
their training, or that of the critic of ``critic.py``, beside a decoder.

Widths and weights follow the published training code; Yu et al. 2024 give the losses in section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from titokcodec.metrics.efficientnet import Lite0

from . import parallel
from .checkpoint import take
from .compute import to_device
from .critic import FeatureCritic
from .hyper import Adversarial, Optimizer, Schedule
from .optimizers import decay_groups
from .schedule import begun_later, schedule

SLOPE = 0.1  # of every LeakyReLU
GRID = 16  # side of the grid of logits, at most
DECAY = 0.999


class Blur(nn.Module):
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)): the binomial filter (1, 3, 3, 1), then every second pixel.

    Without it a discriminator sees the aliases of its own subsampling (Zhang 2019). Beyond the borders there are zeros;
    an odd side gets one more of them behind than in front, and is rounded up.
    """

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        if height % 2 or width % 2:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


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
        x = self.stages(self.block_in(pixels))
        grid = (min(GRID, x.shape[2]), min(GRID, x.shape[3]))
        return [self.to_logits(F.adaptive_max_pool2d(x, grid))]


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Logits of any shape -> what the discriminator minimises: half of mean relu(1 - real) + mean relu(1 + fake).

    Zero once real pictures score above 1 and decoded ones below -1 (Lim & Ye 2017, "Geometric GAN"; the half is that of
    Esser et al. 2021, "Taming Transformers").
    """
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """Logits of decoded pictures -> what the generator minimises: their negative mean (Lim & Ye 2017)."""
    return -fake.float().mean()


class LeCam(nn.Module):
    """Keeps a discriminator from running away from few pictures (Tseng et al. 2021, "Regularizing GANs under Limited
    Data"): the mean logit on one side may not lie far beyond the running mean of those on the other.

    Penalises only one direction, as its authors' code does; their equation has plain squares. The running means are
    buffers, so they are in the state dict.

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
        """Mean logits of a step, () each -> the regularizer, to be added to the discriminator's loss (published weight
        .001)."""
        return F.relu(real.float() - self.fake).square() + F.relu(self.real - fake.float()).square()

    @torch.no_grad()
    def update(self, real: Tensor, fake: Tensor) -> None:
        """Move the running means towards the mean logits of a step, () each; after ``forward``, once a step."""
        self.real.lerp_(real.float(), 1 - self.decay)
        self.fake.lerp_(fake.float(), 1 - self.decay)


class Adversary:
    """A critic in training, and its adversarial loss for the decoder.

    The critic learns after each update of the decoder, from the pictures that this update was made for, by an optimizer
    and a schedule of its own: the rise of its learning rate begins when it does. Without that rise its first gradients
    are hundreds of times as large as later ones.

    Args:
        hyper: Rates and weights.
        optimizer, schedule: Of the run: the critic has their weight decay, largest norm of the gradient and shape of
            the learning rate.
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
        optimizer: Optimizer,
        schedule: Schedule,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        lite0: Lite0 | None = None,
    ) -> None:
        critic = FeatureCritic(lite0) if lite0 else Discriminator(hyper.width)
        self.critic = to_device(critic, device)
        self.hyper, self.weight, self.start, self.clip = hyper, hyper.weight, hyper.start, optimizer.clip
        self.schedule = begun_later(hyper.start, schedule)
        self.lecam, self.autocast = LeCam().to(device), autocast
        named = [(name, p) for name, p in self.critic.named_parameters() if p.requires_grad]
        self.trained = [p for _, p in named]
        self.optimizer = torch.optim.AdamW(decay_groups(named, optimizer.decay), lr=hyper.rate, betas=(0.9, 0.999))
        self.forward = parallel.wrapped(self.critic)

    def rate(self, progress: float) -> float:
        """The critic's learning rate after a share of the whole run."""
        left = 1 - self.start
        return self.hyper.rate * schedule((progress - self.start) / left if left else 0.0, 0, self.schedule)

    def learn(self, target: Tensor, decoded: Tensor, progress: float) -> dict[str, Tensor]:
        """One step of the critic on (B, 3, H, W) pairs, after a share of the run; returns what it measured."""
        some = self._some(decoded)
        with self.autocast():
            maps = self.forward(torch.cat([target[some], decoded[some].detach()]))
        pairs = [(real, fake) for real, fake in (logits.float().chunk(2) for logits in maps)]
        loss = torch.stack([hinge_discriminator(real, fake) for real, fake in pairs]).mean()
        real, fake = (_mean_logit(side) for side in zip(*pairs, strict=True))
        (loss + self.hyper.lecam * self.lecam(real, fake)).backward()
        self.lecam.update(real.detach(), fake.detach())
        norm = nn.utils.clip_grad_norm_(self.trained, self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(progress)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"critic": loss.detach(), "margin": (real - fake).detach(), "critic_norm": norm}

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

    def go_on(self, state: dict[str, dict]) -> None:
        """Take over the critic that an earlier stage left, but not the moments of its optimizer.

        Raises:
            MISFITS: it is of another kind.
        """
        if isinstance(self.critic, Discriminator) and len(state["optimizer"]["param_groups"]) == 1:
            raise ValueError("an earlier version's, which saw pixels in [-1, 1]")
        take(self.critic, state["critic"])
        take(self.lecam, state["lecam"])

    def state_dict(self) -> dict[str, dict]:
        return {name: getattr(self, name).state_dict() for name in ("critic", "lecam", "optimizer")}

    def load_state_dict(self, state: dict[str, dict]) -> None:
        for name, value in state.items():
            take(getattr(self, name), value)


def _mean_logit(maps: Sequence[Tensor]) -> Tensor:
    """The mean of the maps' means, over the pictures of all ranks, each of which has the gradient of its own part."""
    mine = torch.stack([logits.mean() for logits in maps]).mean()
    return mine + (parallel.mean(mine) - mine.detach())
