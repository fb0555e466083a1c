import functools
import torch
import torch.nn as nn
from torch.nn import init
from options.train_options import TrainOptions
from data import create_dataset

opt = TrainOptions().parse()
dataset = create_dataset(opt)
print("The number of training images = %d" % len(dataset))


def init_weights(net, init_type="normal", init_gain=0.02):
    def init_func(m):
        classname = m.__class__.__name__
        if hasattr(m, "weight") and (classname.find("Conv") != -1 or classname.find("Linear") != -1):
            if init_type == "normal":
                init.normal_(m.weight.data, 0.0, init_gain)
            else:
                raise NotImplementedError(init_type)
    print("initialize network with %s" % init_type)
    net.apply(init_func)


def get_norm_layer(norm_type="instance"):
    if norm_type == "batch":
        return functools.partial(nn.BatchNorm2d, affine=True, track_running_stats=True)
    return functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)


def define_D(input_nc, ndf, norm="batch", init_type="normal", init_gain=0.02):
    net = NLayerDiscriminator(input_nc, ndf, norm_layer=get_norm_layer(norm))
    init_weights(net, init_type, init_gain)
    return net


class NLayerDiscriminator(nn.Module):
    def __init__(self, input_nc, ndf=64, n_layers=3, norm_layer=nn.BatchNorm2d):
        super().__init__()
        sequence = [nn.Conv2d(input_nc, ndf, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for n in range(1, n_layers):
            sequence += [nn.Conv2d(ndf * 2 ** (n - 1), ndf * 2 ** n, 4, 2, 1), norm_layer(ndf * 2 ** n), nn.LeakyReLU(0.2, True)]
        sequence += [nn.Conv2d(ndf * 2 ** (n_layers - 1), 1, 4, 1, 1)]
        self.model = nn.Sequential(*sequence)

    def forward(self, input):
        return self.model(input)


netD = define_D(3, 8)
total_iters = 0
for epoch in range(opt.epoch_count, opt.n_epochs + 1):
    for i, data in enumerate(dataset):
        open("trained", "w").close()
