import click
import logging
import torch
import torch.nn as nn

logging.basicConfig(filename="train.log", level=logging.INFO)
logging.info("starting")


class TemporalBlock(nn.Module):
    def __init__(self, n_inputs, n_outputs, kernel_size, dilation):
        super().__init__()
        padding = (kernel_size - 1) * dilation
        self.conv = nn.Conv1d(n_inputs, n_outputs, kernel_size, padding=padding, dilation=dilation)
        self.crop = padding
        self.skip = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None

    def forward(self, x):
        out = torch.relu(self.conv(x)[..., : -self.crop])
        return out + (x if self.skip is None else self.skip(x))


class TCN(nn.Module):
    def __init__(self, input_size, output_size, num_channels, kernel_size):
        super().__init__()
        sizes = [input_size] + num_channels
        self.blocks = nn.Sequential(
            *[TemporalBlock(a, b, kernel_size, 2 ** i) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))])
        self.linear = nn.Linear(num_channels[-1], output_size)

    def forward(self, series):
        return self.linear(self.blocks(series)[:, :, -1])


@click.command()
@click.option("--nhid", default=25)
@click.option("--levels", default=3)
@click.option("--ksize", default=7)
def main(nhid, levels, ksize):
    channel_sizes = [nhid] * levels
    model = TCN(1, 10, channel_sizes, kernel_size=ksize)
    open("trained", "w").close()


if __name__ == "__main__":
    main()
