"""Healthy generative models: adversarial nets, diffusion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def init_dcgan(module: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch norms N(1, 0.02) (Radford et al. 2016)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def dcgan_generator(code: int = 64, width: int = 32) -> nn.Module:
    """From a code of one pixel to an image of 32."""
    sizes = [(code, 4 * width, 1, 0), (4 * width, 2 * width, 2, 1), (2 * width, width, 2, 1)]
    layers: list[nn.Module] = []
    for a, b, stride, padding in sizes:
        layers += [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    net = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())
    net.apply(init_dcgan)
    return net


def dcgan_discriminator(width: int = 32) -> nn.Module:
    """From an image of 32 to one logit."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in ((width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    net = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 4, 1, 0, bias=False), nn.Sigmoid())
    net.apply(init_dcgan)
    return net


def spectral_discriminator(width: int = 32) -> nn.Module:
    """Spectral norm on every layer (Miyato et al. 2018)."""
    layers: list[nn.Module] = []
    for a, b in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [spectral_norm(nn.Conv2d(a, b, 4, 2, 1)), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers, nn.Flatten(), spectral_norm(nn.Linear(4 * width * 16, 1)))


class EqualisedLinear(nn.Module):
    """N(0, 1) parameters, scaled by He's constant when they are used (Karras et al. 2018)."""

    def __init__(self, a: int, b: int, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a) / rate)
        self.bias = nn.Parameter(torch.zeros(b))
        self.scale = rate / math.sqrt(a)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualisedConv(nn.Module):
    """The same for a convolution."""

    def __init__(self, a: int, b: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(b, a, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(b))
        self.scale, self.padding = 1 / math.sqrt(a * kernel**2), kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualisedMapping(nn.Module):
    """Eight layers from a normalised code to a style, learning rate multiplier 0.01."""

    def __init__(self, width: int = 64, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EqualisedLinear(width, width, 0.01) for _ in range(depth))

    def forward(self, z: Tensor) -> Tensor:
        z = z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8)
        for layer in self.layers:
            z = F.leaky_relu(layer(z), 0.2) * math.sqrt(2)
        return z


class EqualisedDiscriminator(nn.Module):
    """A discriminator of equalised convolutions."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [EqualisedConv(3, width, 1), EqualisedConv(width, width, 3), EqualisedConv(width, width, 3)]
        )
        self.head = EqualisedLinear(width * 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = F.avg_pool2d(F.leaky_relu(conv(x), 0.2) * math.sqrt(2), 2)
        return self.head(x.flatten(1))


def closed(module: nn.Module) -> nn.Module:
    """The module with all its parameters at zero."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


class DiffusionBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the second convolution starts at zero (Ho et al. 2020)."""

    def __init__(self, a: int, b: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, a), nn.Conv2d(a, b, 3, padding=1)
        self.time = nn.Linear(time, b)
        self.norm2, self.conv2 = nn.GroupNorm(8, b), closed(nn.Conv2d(b, b, 3, padding=1))
        self.skip = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(t))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class DiffusionUNet(nn.Module):
    """Noise from a noisy image and a time; zero convolutions at the end of every branch and of the net."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        w, e = width, 4 * width
        self.width = w
        self.embed = nn.Sequential(nn.Linear(w, e), nn.SiLU(), nn.Linear(e, e))
        self.stem = nn.Conv2d(3, w, 3, padding=1)
        self.down1, self.shrink = DiffusionBlock(w, w, e), nn.Conv2d(w, w, 3, 2, 1)
        self.down2, self.middle = DiffusionBlock(w, 2 * w, e), DiffusionBlock(2 * w, 2 * w, e)
        self.up2, self.grow = DiffusionBlock(4 * w, w, e), nn.Conv2d(w, w, 3, padding=1)
        self.up1 = DiffusionBlock(2 * w, w, e)
        self.out = nn.Sequential(nn.GroupNorm(8, w), nn.SiLU(), closed(nn.Conv2d(w, 3, 3, padding=1)))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        rate = torch.exp(-math.log(1e4) * torch.arange(self.width // 2) / (self.width // 2))
        phase = time[:, None].float() * rate[None]
        t = self.embed(torch.cat([phase.cos(), phase.sin()], 1))
        a = self.down1(self.stem(x), t)
        b = self.down2(self.shrink(a), t)
        y = self.up2(torch.cat([self.middle(b, t), b], 1), t)
        y = self.grow(F.interpolate(y, scale_factor=2.0))
        return self.out(self.up1(torch.cat([y, a], 1), t))


class ModulatedBlock(nn.Module):
    """A transformer block whose shifts, scales and gates come from the condition and start at zero (DiT)."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulate = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulate(c)[:, None].chunk(6, -1)
        b, n, d = x.shape
        y = self.norm1(x) * (1 + scale1) + shift1
        q, k, v = self.qkv(y).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + gate1 * self.proj(y)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class DiffusionTransformer(nn.Module):
    """adaLN-zero blocks and a zero final layer (Peebles & Xie 2023)."""

    def __init__(self, width: int = 64, depth: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.patch, self.label = nn.Linear(48, width), nn.Embedding(classes, width)
        self.positions = nn.Parameter(torch.zeros(1, 16, width))
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.out = nn.Linear(width, 48)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.label.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)
        for block in self.blocks:
            nn.init.zeros_(block.modulate[1].weight)
            nn.init.zeros_(block.modulate[1].bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        x, c = self.patch(x) + self.positions, self.label(label)
        for block in self.blocks:
            x = block(x, c)
        return self.out(self.norm(x))
