def test_analyse(analyse):
    f = analyse("""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(4, 4)
                nn.init.ones_(self.fc.weight)
            def forward(self, x): return F.relu(self.fc(x))
    """)
    print(f.parameters[0].writes, f.status, f.layers)
    assert f.status == "analysed"
    assert f.parameters[0].last.op == "ones_"
    assert f.parameters[0].last.site.line == 10
