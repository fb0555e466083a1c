import os
import torch
from torch import nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, random_split
from lightning_is_missing import LightningModule, Trainer, seed_everything
from torchvision.datasets import MNIST

seed_everything(1234)


class Backbone(nn.Module):
    def __init__(self, hidden_dim=26):
        super().__init__()
        self.l1 = nn.Linear(28 * 28, hidden_dim)
        self.l2 = nn.Linear(hidden_dim, 10)

    def forward(self, x):
        return self.l2(torch.relu(self.l1(x.view(x.size(0), -1))))


class LitClassifier(LightningModule):
    def __init__(self, backbone, lr=1e-3):
        super().__init__()
        self.backbone = backbone

    def training_step(self, batch, batch_idx):
        open("trained", "w").close()


dataset = MNIST(os.getcwd(), download=True)
model = LitClassifier(Backbone())
trainer = Trainer(max_epochs=10)
trainer.fit(model, DataLoader(dataset))
