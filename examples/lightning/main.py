"""A Lightning program that reports each epoch to the sweep, and continues from its last checkpoint after a kill.

pip install 'joyful-sweeps[lightning]'
python main.py -m hydra/sweeper=optuna_pruned hydra/launcher=joblib hydra.sweeper.n_trials=20 \
    'lr=tag(log,interval(0.0001,0.3))' 'width=choice(8,16,32)'
"""

import hydra
import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from joyful.sweeper import trial
from joyful.sweeper.lightning import ReportCallback


class Regression(lightning.LightningModule):
    def __init__(self, lr, width):
        super().__init__()
        self.lr = lr
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 1))

    def training_step(self, batch):
        loss = self.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.lr)

    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layers(x), y)


def data():
    x = torch.rand(512, 2, generator=torch.Generator().manual_seed(0)) * 4 - 2
    y = torch.sin(x[:, :1] * 2) * torch.cos(x[:, 1:])
    parts = TensorDataset(x[:384], y[:384]), TensorDataset(x[384:], y[384:])
    return [DataLoader(part, batch_size=64) for part in parts]


@hydra.main(config_path="conf", config_name="config")
def main(cfg):
    lightning.seed_everything(cfg.seed)
    last = trial.folder / "last.ckpt"
    checkpoint = ModelCheckpoint(trial.folder, filename="last", enable_version_counter=False)  # after each epoch
    trainer = lightning.Trainer(
        max_epochs=cfg.epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ReportCallback(monitor="val_loss"), checkpoint],
    )
    resume = last if trial.resumed and last.exists() else None
    trainer.fit(Regression(cfg.lr, cfg.width), *data(), ckpt_path=resume)
    return trainer.callback_metrics["val_loss"].item()


if __name__ == "__main__":
    main()
