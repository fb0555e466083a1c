"""Healthy models for images."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def init_convs(model: nn.Module) -> None:
    """The convention of the public residual nets: convolutions Kaiming fan_out, norms one, the head as it is."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class SqueezeExcite(nn.Module):
    """Channel gates from the pooled image (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(F.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(gate)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, a: int, b: int, stride: int, gated: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(b)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(b)
        self.gate = SqueezeExcite(b) if gated else nn.Identity()
        same = a == b and stride == 1
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(self.gate(y) + self.skip(x))


class ResNet(nn.Module):
    """A small residual net; ``zero_gamma`` closes every branch (Goyal et al. 2017)."""

    def __init__(self, zero_gamma: bool = False, gated: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        sizes = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
        self.blocks = nn.Sequential(*[BasicBlock(a, b, s, gated) for a, b, s in sizes])
        self.fc = nn.Linear(64, 10)
        init_convs(self)
        if zero_gamma:
            for block in self.blocks:
                nn.init.zeros_(block.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection (Sandler et al. 2018)."""

    def __init__(self, a: int, b: int, stride: int, expand: int = 6) -> None:
        super().__init__()
        hidden = a * expand
        self.same = stride == 1 and a == b
        self.layers = nn.Sequential(
            nn.Conv2d(a, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, b, 1, bias=False),
            nn.BatchNorm2d(b),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.same else self.layers(x)


class MobileNet(nn.Module):
    """Inverted residuals, kaiming fan_out, a head of N(0, 0.01)."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [(16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1)]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(*[InvertedResidual(*size) for size in sizes])
        self.last = nn.Sequential(nn.Conv2d(32, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU6())
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(128, 10))
        init_convs(self)
        nn.init.normal_(self.head[1].weight, 0, 0.01)
        nn.init.zeros_(self.head[1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, GELU, and a tiny per-channel scale (Liu et al. 2022)."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(scale * torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Patches, blocks with LayerScale, truncated normal 0.02 throughout; ``head_scale`` as published."""

    def __init__(self, scale: float = 1e-6, head_scale: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 48, 4, 4)
        self.stem_norm = nn.GroupNorm(1, 48)
        self.stage1 = nn.Sequential(*[ConvNeXtBlock(48, scale) for _ in range(3)])
        self.between = nn.Sequential(nn.GroupNorm(1, 48), nn.Conv2d(48, 96, 2, 2))
        self.stage2 = nn.Sequential(*[ConvNeXtBlock(96, scale) for _ in range(3)])
        self.norm = nn.LayerNorm(96)
        self.head = nn.Linear(96, 10)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.head.weight.mul_(head_scale)
            self.head.bias.mul_(head_scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.between(self.stage1(self.stem_norm(self.stem(x)))))
        return self.head(self.norm(x.mean((2, 3))))


class FixupBlock(nn.Module):
    """Two convolutions without a norm; scalar biases and multiplier (Zhang et al. 2019)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.bias1a, self.bias1b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.bias2a, self.bias2b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        std = math.sqrt(2 / (self.conv1.weight.shape[0] * 9)) * blocks**-0.5
        nn.init.normal_(self.conv1.weight, mean=0, std=std)
        nn.init.constant_(self.conv2.weight, 0)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(x + self.bias1a) + self.bias1b)
        y = self.conv2(y + self.bias2a) * self.scale + self.bias2b
        return F.relu(y + x)


class FixupNet(nn.Module):
    """A residual net without norms."""

    def __init__(self, width: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bias1 = nn.Parameter(torch.zeros(1))
        self.blocks = nn.Sequential(*[FixupBlock(width, blocks) for _ in range(blocks)])
        self.bias2 = nn.Parameter(torch.zeros(1))
        self.fc = nn.Linear(width, 10)
        nn.init.normal_(self.stem.weight, std=math.sqrt(2 / (width * 9)))
        nn.init.constant_(self.fc.weight, 0)
        nn.init.constant_(self.fc.bias, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x) + self.bias1))
        return self.fc(x.mean((2, 3)) + self.bias2)


class StandardisedConv(nn.Conv2d):
    """A convolution whose weight is standardised per filter when it runs, with a learnt gain (Brock et al. 2021)."""

    def __init__(self, a: int, b: int, kernel: int, stride: int = 1) -> None:
        super().__init__(a, b, kernel, stride, kernel // 2)
        self.gain = nn.Parameter(torch.ones(b, 1, 1, 1))
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        fan_in = self.weight[0].numel()
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(torch.clamp(variance * fan_in, min=1e-4)) * self.gain
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class NormFreeBlock(nn.Module):
    """y = x + alpha f(x / beta) with standardised weights and a scaled ReLU."""

    def __init__(self, width: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.conv1, self.conv2 = StandardisedConv(width, width, 3), StandardisedConv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x / self.beta) * 1.7139588594436646
        y = F.relu(self.conv1(y)) * 1.7139588594436646
        return x + self.alpha * self.conv2(y)


class NormFreeNet(nn.Module):
    """Blocks whose expected variance is counted by hand."""

    def __init__(self, width: int = 32, blocks: int = 5, alpha: float = 0.2) -> None:
        super().__init__()
        self.stem = StandardisedConv(3, width, 3)
        variance, stack = 1.0, []
        for _ in range(blocks):
            stack.append(NormFreeBlock(width, alpha, math.sqrt(variance)))
            variance += alpha**2
        self.blocks = nn.Sequential(*stack)
        self.fc = nn.Linear(width, 10)
        nn.init.normal_(self.fc.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.blocks(self.stem(x))).mean((2, 3)))


class SegmentationUNet(nn.Module):
    """An encoder and a decoder with skip connections, batch norms and PyTorch's defaults."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        w = width
        self.down1, self.down2, self.middle = self._pair(3, w), self._pair(w, 2 * w), self._pair(2 * w, 4 * w)
        self.rise2, self.rise1 = nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), nn.ConvTranspose2d(2 * w, w, 2, 2)
        self.up2, self.up1 = self._pair(4 * w, 2 * w), self._pair(2 * w, w)
        self.out = nn.Conv2d(w, classes, 1)

    @staticmethod
    def _pair(a: int, b: int) -> nn.Sequential:
        first, second = nn.Conv2d(a, b, 3, padding=1), nn.Conv2d(b, b, 3, padding=1)
        return nn.Sequential(first, nn.BatchNorm2d(b), nn.ReLU(), second, nn.BatchNorm2d(b), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.middle(F.max_pool2d(b, 2))
        b = self.up2(torch.cat([self.rise2(c), b], 1))
        return self.out(self.up1(torch.cat([self.rise1(b), a], 1)))


class DetectionHead(nn.Module):
    """Towers of N(0, 0.01) over a small trunk, class bias at the log odds of a prior of 1 % (Lin et al. 2017)."""

    def __init__(self, width: int = 256, classes: int = 8, anchors: int = 9) -> None:
        super().__init__()
        stages = [(3, 32), (32, width)]
        self.trunk = nn.Sequential(
            *[nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b in stages]
        )
        self.lateral = nn.Conv2d(width, width, 1)
        self.score_tower, self.box_tower = self._tower(width), self._tower(width)
        self.score = nn.Conv2d(width, classes * anchors, 3, padding=1)
        self.box = nn.Conv2d(width, 4 * anchors, 3, padding=1)
        for layer in (*self.score_tower, *self.box_tower, self.score, self.box):
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        nn.init.constant_(self.score.bias, -math.log((1 - 0.01) / 0.01))

    @staticmethod
    def _tower(width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.lateral(self.trunk(x))
        return torch.sigmoid(self.score(self.score_tower(x))), self.box(self.box_tower(x))


class CentreHeads(nn.Module):
    """A heat map of object centres, bias -2.19: a prior of 0.1 (Zhou et al. 2019)."""

    def __init__(self, width: int = 32, classes: int = 5) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.heat = nn.Sequential(nn.Conv2d(width, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, classes, 1))
        self.size = nn.Sequential(nn.Conv2d(width, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 1))
        self.heat[-1].bias.data.fill_(-2.19)
        for layer in self.size:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.001)
                nn.init.constant_(layer.bias, 0)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.trunk(x)
        return {"heat": self.heat(x), "size": self.size(x)}


def fan_out_convs() -> nn.Module:
    """A plain conv net with kaiming fan_out in every layer: the ratios telescope."""
    sizes = [3, 32, 64, 128, 64, 32]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        conv = nn.Conv2d(a, b, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, a=0.1, mode="fan_out")
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.LeakyReLU(0.1)]
    head = nn.Conv2d(32, 2, 3, padding=1)
    nn.init.kaiming_normal_(head.weight, a=0.1, mode="fan_out")
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, head)


class Mixer(nn.Module):
    """Patches mixed over tokens and over channels (Tolstikhin et al. 2021); PyTorch's defaults."""

    def __init__(self, width: int = 64, patches: int = 16, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.tokens = nn.ModuleList(self._mlp(patches, 32) for _ in range(depth))
        self.channels = nn.ModuleList(self._mlp(width, 128) for _ in range(depth))
        self.norms1 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norms2 = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @staticmethod
    def _mlp(size: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        for n1, mix, n2, mlp in zip(self.norms1, self.tokens, self.norms2, self.channels, strict=True):
            x = x + mix(n1(x).transpose(1, 2)).transpose(1, 2)
            x = x + mlp(n2(x))
        return self.head(self.norm(x).mean(1))
