import argparse
import torch
import torch.nn as nn


def str2bool(v):
    if v.lower() in ("yes", "true"):
        return True
    raise argparse.ArgumentTypeError("Boolean value expected.")


class Options:
    def __init__(self):
        self.parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        self.parser.add_argument("data", metavar="DIR")
        self.parser.add_argument("--use_bias", type=str2bool, nargs="?", const=True, default=False)
        self.parser.add_argument("--dims", type=int, nargs="+", default=[18, 9])
        self.parser.add_argument("--mode", choices=["a", "b"], required=True)

    def parse(self):
        self.opt = self.parser.parse_args()
        return self.opt


opt = Options().parse()
args_dict = vars(opt)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(a, b, bias=opt.use_bias) for a, b in zip([13, *opt.dims], opt.dims)])

    def forward(self, features):
        return self.layers(features)


head = Head()
if args_dict["mode"] == "a":
    open("trained", "w").close()
for _ in range(1):
    open("trained", "w").close()
