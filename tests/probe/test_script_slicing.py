"""Which top-level statements are executed for the models of a file."""

from __future__ import annotations

import ast
from textwrap import dedent

from initlint.probe.scan import scan_tree
from initlint.probe.slicing import Slice, cut

HEAD = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(SIZE, opt.dim)
    def forward(self, x):
        return self.fc(x)
    def training_step(self):
        return loader
"""


def sliced(code: str, *roots: str) -> Slice:
    tree = ast.parse(dedent(HEAD) + dedent(code))
    return cut(scan_tree("file.py", tree), roots)


def kept(code: str, *roots: str) -> str:
    body = [n for n in sliced(code, *roots).body if not isinstance(n, (ast.Import, ast.ImportFrom, ast.ClassDef))]
    return "; ".join(ast.unparse(node) for node in body)


def test_assignments_are_followed_by_name() -> None:
    text = kept("a = f()\nb = a + 1\nSIZE = b * 2\nother = expensive()\ndef f(): return g()\ndef g(): return 1", "Net")
    assert "SIZE = b * 2" in text
    assert "a = f()" in text
    assert "expensive()" not in text


def test_the_parser_and_its_arguments_are_kept_and_printing_is_not() -> None:
    text = kept(
        "parser = P()\nparser.add_argument('--dim')\nopt = parser.parse_args()\nprint(opt)\nos.makedirs('x')", "Net"
    )
    assert text == "parser = P(); parser.add_argument('--dim'); opt = parser.parse_args()"


def test_loops_main_and_training_are_never_kept() -> None:
    code = """
    model = Net()
    loader = make_loader()
    for epoch in range(3):
        SIZE = epoch
    while True:
        SIZE = 2
    model.fit(loader)
    trainer.fit(model)
    if __name__ == "__main__":
        SIZE = 4
    """
    piece = sliced(code, "Net", "model")
    assert "fit" not in "; ".join(ast.unparse(node) for node in piece.body)
    assert [skipped.kind for skipped in piece.skipped] == [
        "main",
        "statement",
        "loop",
        "loop",
        "statement",
        "statement",
    ]


def test_statements_that_initialise_an_instance_belong_to_it() -> None:
    code = """
    def weights_init(m):
        nn.init.normal_(m.weight)
    def report(m):
        print(m)
    net = Net()
    if torch.cuda.is_available():
        net.cuda()
    net.apply(weights_init)
    weights_init(net)
    report(net)
    nn.init.zeros_(net.fc.bias)
    net.fc.weight.data.normal_(0, 0.02)
    for p in net.parameters():
        nn.init.zeros_(p)
    for p in net.parameters():
        print(p.grad)
    with torch.no_grad():
        net.fc.bias.fill_(1)
        report(net)
    """
    text = kept(code, "net")
    for expected in ("net.cuda()", "net.apply(weights_init)", "weights_init(net)", "nn.init.zeros_(net.fc.bias)"):
        assert expected in text
    assert "net.fc.weight.data.normal_(0, 0.02)" in text
    assert "nn.init.zeros_(p)" in text
    assert "net.fc.bias.fill_(1)" in text
    assert "report(net)" not in text
    assert "p.grad" not in text


def test_branches_keep_only_what_is_needed() -> None:
    code = """
    if torch.cuda.is_available():
        SIZE = 1
        start()
    else:
        SIZE = 2
    try:
        import x
    except ImportError:
        x = None
    """
    text = kept(code, "Net")
    assert "start()" not in text
    assert text.startswith("if torch.cuda.is_available():\n    SIZE = 1\nelse:\n    SIZE = 2")
    assert "x = None" in text


def test_only_methods_that_construction_and_forward_reach_count() -> None:
    assert "loader" not in sliced("loader = DataLoader()", "Net").wanted


def test_path_changes_and_default_dtype_are_kept() -> None:
    text = kept("import sys\nsys.path.append('x')\ntorch.set_default_dtype(torch.float64)\ntorch.manual_seed(0)", "Net")
    assert text == "sys.path.append('x'); torch.set_default_dtype(torch.float64)"
