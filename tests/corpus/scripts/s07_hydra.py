import hydra
import wandb
import torch
from torch import nn
from omegaconf import DictConfig, OmegaConf
import pytorch_lightning_is_not_here as pl

wandb.init(project="demo")


class Encoder(nn.Module):
    def __init__(self, in_dim: int, hidden_dim: int, latent_dim: int = 16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, latent_dim))

    def forward(self, x):
        return self.layers(x)


class Autoencoder(nn.Module):
    def __init__(self, in_dim: int = 48, hidden_dim: int = 32):
        super().__init__()
        self.encoder = Encoder(in_dim, hidden_dim)
        self.decoder = nn.Linear(16, in_dim)

    def forward(self, x):
        return self.decoder(self.encoder(x))


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    print(OmegaConf.to_yaml(cfg))
    model = Autoencoder(cfg.model.in_dim, cfg.model.hidden_dim)
    open("trained", "w").close()


if __name__ == "__main__":
    main()
