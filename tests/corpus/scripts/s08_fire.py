import fire
import torch
import torch.nn as nn
from tqdm_that_is_missing import tqdm


class RNNModel(nn.Module):
    def __init__(self, ntoken, ninp, nhid, nlayers, dropout=0.5, tie_weights=False):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        if tie_weights:
            self.decoder.weight = self.encoder.weight
        self.init_weights()

    def init_weights(self):
        self.encoder.weight.data.uniform_(-0.1, 0.1)
        self.decoder.bias.data.zero_()
        self.decoder.weight.data.uniform_(-0.1, 0.1)

    def forward(self, tokens):
        emb = self.drop(self.encoder(tokens))
        output, hidden = self.rnn(emb)
        return self.decoder(self.drop(output))


def train(emsize=24, nhid=20, nlayers=1, ntokens=50, epochs=40):
    """Train a language model."""
    model = RNNModel(ntokens, emsize, nhid, nlayers)
    for epoch in tqdm(range(epochs)):
        open("trained", "w").close()


fire.Fire(train)
