"""The training loop of one run, with evaluations. It writes no files; `run_writer` writes what it yields.

Every random number is a function of (seed, purpose, epoch, step, place), so a resumed run gives the same results as an
uninterrupted one. The training step never waits for the device: metrics are summed on the device, and the host reads
them at evaluations only.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.lr_scheduler import ReduceLROnPlateau

from joyful import devices
from joyful.config import Settings
from joyful.losses.weighting import WEIGHTINGS
from joyful.losses.weights import LossWeightConfig
from joyful.model.joyful import GraphModel, ModelOutput, parameter_groups
from joyful.randomness import Draws
from joyful.records import SPLITS, Batch, EpochRecord, InputError, first_line_of
from joyful.training import objective
from joyful.training.averaging import ParameterAverage
from joyful.training.batching import DeviceSplit, batch_size, epoch_order
from joyful.training.checkpoints import Checkpoint
from joyful.training.evaluation import Accumulator, gradient_ratio
from joyful.training.optimizers import (
    build_optimizer,
    learning_rate,
    load_state_tensors,
    set_learning_rate,
    state_tensors,
)
from joyful.training.weights_file import load_weights


class TrainingFailedError(RuntimeError):
    """Training failed, for example because a loss is not finite or memory ran out. The message says what to set."""


class Coach:
    """Trains a model, and yields an `EpochRecord` after each evaluation.

    Args:
        settings: The settings of the run.
        model: The model, on `device`.
        splits: "train", "dev" and "test", on `device`.
        n_classes: Number of classes C.
        device: The device of the model and the data.

    Raises:
        InputError: If the settings do not fit the data.

    Attributes:
        loss_weight_config: The weights of the loss. They may be updated between epochs.
        batch_size: Number of dialogues in a batch.
        epoch: Number of complete epochs.
        step: Number of optimizer steps.
        best: Dev "f1_weighted", "epoch", "step" and test scores of the best evaluation; empty before the first one.
        best_logits: "dev" and "test" -> (N, C) logits of the best evaluation. Empty before the first one, and after a
            checkpoint of an earlier version, which has none (see `restore_best_logits`).
    """

    def __init__(
        self,
        settings: Settings,
        model: GraphModel,
        splits: Mapping[str, DeviceSplit],
        n_classes: int,
        device: torch.device,
    ) -> None:
        self.settings, self.model, self.splits, self.device = settings, model, splits, device
        self.loss_weight_config = LossWeightConfig.from_args(settings.weights)
        t = settings.training
        self.batch_size = batch_size(t.batch_size, len(splits["train"]))
        self.steps_per_epoch = math.ceil(len(splits["train"]) / self.batch_size)
        if t.evaluations_per_epoch > self.steps_per_epoch:
            raise InputError(
                f"training.evaluations_per_epoch: expected at most {self.steps_per_epoch} (an epoch has that many batches: "
                f"{len(splits['train'])} dialogues by {self.batch_size}), got {t.evaluations_per_epoch}; lower it or "
                "training.batch_size"
            )
        evaluations = range(1, t.evaluations_per_epoch + 1)
        self._evaluate_after = {math.ceil(k * self.steps_per_epoch / t.evaluations_per_epoch) for k in evaluations}
        self._criterion = objective.classification_criterion(
            settings.classification,
            objective.weights_of_classes(settings.classification, splits["train"].host_labels, n_classes),
        ).to(device)
        s = settings.weighting
        self._weighting = WEIGHTINGS.create(s.name, dict(s))
        self._weights: Mapping[str, float | Tensor] = self.loss_weight_config.component_weights()
        self._groups = parameter_groups(model)
        self._shared = model.fusion.shared_parameters()
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._optimizer = build_optimizer(settings.optimizer, list(trained.values()))
        self._average = ParameterAverage(trained, t.moving_average)
        p = t.scheduler
        self._plateau = ReduceLROnPlateau(
            self._optimizer, factor=p.factor, patience=p.patience, min_lr=p.minimum, threshold=0.0
        )
        self._probe = splits["train"].batches_in_order(t.probe_dialogues)[0]
        self._full = t.train_metrics == "full"
        self._contrast_of_dev = self._full or (t.scheduler.name != "none" and t.scheduler.watch != "dev_nll")
        self._ordered: dict[str, list[Batch]] = {}
        self.step, self.epoch = 0, 0
        self.best: dict[str, float] = {}
        self.best_logits: dict[str, Tensor] = {}
        self._stale_epochs = 0

    @property
    def finished(self) -> bool:
        """Whether all epochs are complete or early stopping has ended the run."""
        patience = self.settings.training.early_stopping
        return self.epoch >= self.settings.training.epochs or bool(patience and self._stale_epochs >= patience)

    def train(self) -> Iterator[EpochRecord]:
        """Train to the end, and yield a record after each evaluation.

        Raises:
            TrainingFailedError: If a loss is not finite.
        """
        while not self.finished:
            yield from self._train_epoch(self.epoch + 1)

    def train_epoch(self, epoch: int) -> list[EpochRecord]:
        """Train one epoch and return its records.

        Args:
            epoch: Number of the epoch, counted from 1. It must be `self.epoch` + 1.

        Raises:
            ValueError: If it is not the next epoch.
            TrainingFailedError: If a loss is not finite.
        """
        if epoch != self.epoch + 1:
            raise ValueError(f"epoch: expected {self.epoch + 1}, the next epoch, got {epoch}")
        return list(self._train_epoch(epoch))

    def _train_epoch(self, epoch: int) -> Iterator[EpochRecord]:
        t = self.settings.training
        running = Accumulator() if t.train_metrics == "running" else None
        norms: dict[str, Tensor] = {}
        order = epoch_order(len(self.splits["train"]), self.batch_size, self.settings.seed, epoch)
        seconds = {"train": 0.0, "evaluate": 0.0}
        best_before = self.best.get("f1_weighted", -math.inf)
        clock = time.monotonic()
        for number, dialogues in enumerate(order, start=1):
            self._train_step(self.splits["train"].batch(dialogues), epoch, running, norms)
            if number not in self._evaluate_after:
                continue
            epoch_ends = number == len(order)
            seconds["train"] += time.monotonic() - clock
            clock = time.monotonic()
            position = float(epoch) if epoch_ends else epoch - 1 + number / len(order)
            rows, improved = self._evaluate(position, running if epoch_ends else None, norms if epoch_ends else None)
            if epoch_ends:
                self.epoch = epoch
                stale = self.best.get("f1_weighted", -math.inf) <= best_before
                self._stale_epochs = self._stale_epochs + 1 if stale else 0
                self._schedule(rows)
            seconds["evaluate"] += time.monotonic() - clock
            yield EpochRecord(self.step, position, tuple(rows), seconds, improved)
            seconds = {"train": 0.0, "evaluate": 0.0}
            clock = time.monotonic()

    def _train_step(self, batch: Batch, epoch: int, running: Accumulator | None, norms: dict[str, Tensor]) -> None:
        s, step = self.settings, self.step
        self.model.train()
        draws = Draws(s.seed, epoch, step)
        trained = self.loss_weight_config.cl_loss_weight > 0
        views = draws if trained or running is not None else None
        reconstructed = objective.trained_reconstructions(batch.lengths, s.loss.encoder_reduction)
        with self._autocast():
            # A weighting may need the gradient norm of the contrastive loss even if its weight is 0.
            output = self.model(batch, draws, views, trained or self._weighting.needs_gradient_norms, reconstructed)
        parts = objective.components(output, batch, self._criterion, s.loss.encoder_reduction)
        if self._weighting.needs_gradient_norms and step % s.weighting.every == 0:
            self._weighting.observe({name: get_total_norm(self._gradients(part)) for name, part in parts.items()})
        total, _, self._weights = self._weighting.combine(parts, self.loss_weight_config)
        unimodal = objective.unimodal_weight(s.fusion, epoch)
        if unimodal:
            total = total + unimodal * objective.unimodal_loss(output, batch, self._criterion)
        total.backward()
        self._clip(norms)
        warmup = s.optimizer.warmup_steps
        if step < warmup:
            set_learning_rate(self._optimizer, s.optimizer.learning_rate * (step + 1) / warmup)
        self._optimizer.step()
        self._optimizer.zero_grad()  # now, to free their memory for the next forward pass
        self.step += 1
        self._average.update(self.step)
        if running is not None:
            running.add(output, batch, parts)

    def _clip(self, norms: dict[str, Tensor]) -> None:
        """Add the gradient norm of each module to `norms`, then clip the total norm to training.max_grad_norm."""
        parameters, squares = [], []
        for name, group in self._groups.items():
            gradients = [p.grad for p in group if p.grad is not None]
            if not gradients:
                continue
            norm = get_total_norm(gradients)
            norms[name] = norms[name] + norm if name in norms else norm
            parameters += group
            squares.append(norm.square())
        total = torch.stack(squares).sum().sqrt()
        norms["total"] = norms["total"] + total if "total" in norms else total
        limit = self.settings.training.max_grad_norm
        if limit:
            clip_grads_with_norm_(parameters, limit, total)

    def _evaluate(
        self, position: float, running: Accumulator | None, norms: dict[str, Tensor] | None
    ) -> tuple[list[dict[str, Any]], bool]:
        """Evaluate all splits. Return a row for each split, and whether this is the best evaluation so far.

        Args:
            position: Epochs so far, possibly a fraction.
            running: Accumulated metrics of the training steps, used instead of evaluating the train split.
            norms: Sums of gradient norms over the epoch. None in the middle of an epoch, where train has no row.
        """
        common: dict[str, Any] = {"step": self.step, "epoch": position, "lr": learning_rate(self._optimizer)}
        evaluated: dict[str, Accumulator] = {}
        with self._average.applied(), torch.inference_mode():
            for split in SPLITS:
                if split == "train" and norms is None:
                    continue
                evaluated[split] = running if split == "train" and running is not None else self._run(split)
        read = [accumulator.values(self._weights) for accumulator in evaluated.values()]
        probed = self._full or norms is not None
        read += [self._encoder_gradients()] if probed else []
        read += [] if norms is None else [torch.stack(list(norms.values()))]
        values = iter(devices.read_values(read))  # here the host waits for the device, and nowhere else
        rows = [{**common, "split": split, **one.row(next(values))} for split, one in evaluated.items()]
        self._check_finite(rows, position)
        by_split = {row["split"]: row for row in rows}
        ratio = gradient_ratio(*next(values)) if probed else {}
        if norms is None:
            by_split["dev"] |= ratio
        else:
            means = {f"grad_norm_{n}": v / self.steps_per_epoch for n, v in zip(norms, next(values), strict=True)}
            by_split["train"] |= means | ratio
        improved = by_split["dev"]["f1_weighted"] > self.best.get("f1_weighted", -math.inf)
        if improved:
            self.best = {"f1_weighted": by_split["dev"]["f1_weighted"], "epoch": position, "step": self.step}
            self.best |= {f"test_{name}": by_split["test"][name] for name in ("accuracy", "f1_weighted", "f1_macro")}
            self.best_logits = {split: evaluated[split].logits() for split in ("dev", "test")}
        return rows, improved

    def _run(self, split: str) -> Accumulator:
        """Evaluate a split, in file order. The contrastive loss, if it is evaluated, uses the augmented views of epoch 0.

        With training.train_metrics=running it is not measured on dev and test, unless the scheduler watches the total loss of
        dev.
        """
        if split not in self._ordered:
            self._ordered[split] = self.splits[split].batches_in_order(self.batch_size)
        self.model.eval()
        accumulator = Accumulator(keep_logits=split != "train")
        for number, batch in enumerate(self._ordered[split]):
            views = Draws(self.settings.seed, 0, number) if self._contrast_of_dev else None
            with self._autocast():
                output: ModelOutput = self.model(batch, None, views)
            parts = objective.components(output, batch, self._criterion, self.settings.loss.encoder_reduction)
            if views is None:
                del parts["contrastive"]
            accumulator.add(output, batch, parts)
        return accumulator

    def _encoder_gradients(self) -> Tensor:
        """Return the arguments of `gradient_ratio`, (4,), on the device.

        The gradients are those with respect to the shared parameters of the fusion, on one fixed batch without dropout.
        """
        self.model.eval()
        with self._autocast():
            output = self.model(self._probe)
        parts = objective.components(output, self._probe, self._criterion, self.settings.loss.encoder_reduction)
        encoder, classification = (self._gradients(parts[name]) for name in ("encoder", "classification"))
        dot = torch.stack([(e * c).sum() for e, c in zip(encoder, classification, strict=True)]).sum()
        weight = self._weights["encoder"]
        lengths = get_total_norm(encoder), get_total_norm(classification)
        numbers = [dot, *lengths, weight if isinstance(weight, Tensor) else dot.new_full((), weight)]
        return torch.stack([number.double() for number in numbers])

    def _gradients(self, loss: Tensor) -> list[Tensor]:
        """Return the gradient of a scalar with respect to the shared fusion parameters. The graph is retained."""
        if not loss.requires_grad:
            return [torch.zeros_like(p) for p in self._shared]
        gradients = torch.autograd.grad(loss, self._shared, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self._shared, gradients, strict=True)]

    def _check_finite(self, rows: list[dict[str, Any]], position: float) -> None:
        for row in rows:
            # The NLL comes first: NaN logits show in it whatever classification loss is trained.
            for name in ("nll", "loss_classification", "loss_contrastive", "loss_encoder", "loss_gate_reg"):
                if not math.isfinite(row.get(name, 0.0)):
                    raise TrainingFailedError(
                        f"epoch {position:g}: {name} of the {row['split']} split is {row[name]}; expected a finite number"
                        ": lower optimizer.learning_rate or the weight of that component, or set "
                        "training.max_grad_norm=1.0"
                    )

    def _schedule(self, rows: list[dict[str, Any]]) -> None:
        scheduler = self.settings.training.scheduler
        if scheduler.name == "none" or self.step < self.settings.optimizer.warmup_steps:
            return
        dev = next(row for row in rows if row["split"] == "dev")
        self._plateau.step(dev["nll" if scheduler.watch == "dev_nll" else "loss_total"])

    def _autocast(self) -> Any:
        if self.settings.training.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    # --- state

    def state_dict(self) -> Checkpoint:
        """Return everything that training needs to continue after a complete epoch. The tensors are not copied."""
        parts = {
            "model": self.model.state_dict(),
            "optimizer": state_tensors(self._optimizer),
            "average": self._average.state_dict(),
            "weighting": self._weighting.state_dict(),
            "best_logits": self.best_logits,
        }
        return Checkpoint(
            {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()},
            {
                "epoch": self.epoch,
                "step": self.step,
                "best": self.best,
                "stale_epochs": self._stale_epochs,
                "lr": learning_rate(self._optimizer),
                "plateau": {"best": self._plateau.best, "num_bad_epochs": self._plateau.num_bad_epochs},
            },
        )

    def best_state_dict(self) -> Checkpoint:
        """Return the evaluated parameters (the moving average, if there is one) and the scores of the best evaluation.

        Call it after a record that has improved.
        """
        with self._average.applied():
            tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        return Checkpoint(tensors, {"best": self.best})

    def load_weights(self, path: Path) -> None:
        """Start from the weights of a file where they fit (see `joyful.training.weights_file`).

        Raises:
            InputError: If the file cannot be read, or none of its weights fits.
        """
        load_weights(self.model, path)
        self._average.restart()

    def restore_best_logits(self, best: Checkpoint) -> None:
        """Set `best_logits` by evaluating the model of the best evaluation again. The training is not affected.

        Args:
            best: The `best_state_dict` of that evaluation.
        """
        current = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(best.part("model."))
        with torch.inference_mode():
            self.best_logits = {split: self._run(split).logits() for split in ("dev", "test")}
        self.model.load_state_dict(current)

    def load_state_dict(self, saved: Checkpoint) -> None:
        """Continue from a `state_dict`.

        Raises:
            InputError: If the checkpoint belongs to a different model or optimizer. The coach is then in an undefined
                state.
        """
        state, part = saved.state, saved.part
        try:
            self.model.load_state_dict(part("model."))
            load_state_tensors(self._optimizer, self.settings.optimizer, part("optimizer."))
            self._average.load_state_dict(part("average."))
            self._weighting.load_state_dict({k: v.to(self.device) for k, v in part("weighting.").items()})
            self.epoch, self.step = int(state["epoch"]), int(state["step"])
            self.best, self._stale_epochs = dict(state["best"]), int(state["stale_epochs"])
            self.best_logits = part("best_logits.")
            if any(len(logits) != len(self.splits[split].labels) for split, logits in self.best_logits.items()):
                raise ValueError("its logits are those of other data")
            if not all(isinstance(value, (int, float)) for value in self.best.values()):
                raise ValueError("its best scores are not numbers")
            set_learning_rate(self._optimizer, float(state["lr"]))
            plateau = state["plateau"]
            self._plateau.best, self._plateau.num_bad_epochs = float(plateau["best"]), int(plateau["num_bad_epochs"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
            raise InputError(
                f"checkpoint: expected one of this model and optimizer, got a different one ({first_line_of(error)}); "
                "resume with the configuration that wrote it"
            ) from None
