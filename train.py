"""The note's command line: flags become Hydra overrides, and the same function as run.py's trains."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from joyful.runtime import heap, signals

if __name__ == "__main__":
    signals.leave_at_ctrl_c()
    heap.start_over()  # before anything is loaded

from joyful.records import MODALITIES

#: --dataset NAME -> data=NAME, where the two differ: `meld` has always meant the pickle here.
DATASETS = {"meld": "meld_cogmen"}
LETTERS = "".join(MODALITIES)


def parser() -> argparse.ArgumentParser:
    """The flags of the reference, with its names and defaults; --device is auto and the fusion is the hierarchical one."""
    p = argparse.ArgumentParser(
        description=__doc__,
        epilog="Anything of the form key=value is passed on to run.py as it is: python train.py --dataset=synthetic "
        "model=small training.threads=1",
    )
    add = p.add_argument
    add("overrides", nargs="*", metavar="key=value", help="further overrides of run.py")
    add(
        "--dataset",
        default="iemocap",
        choices=["iemocap", "iemocap_4", "mosei", "meld", "synthetic"],
        help="dataset; all but synthetic are pickles under --data_dir_path (default: %(default)s)",
    )
    add("--modalities", default="atv", choices=["a", "t", "v", "at", "tv", "av", "atv"], help="default: %(default)s")
    add("--data_dir_path", default="./data", help="folder of <dataset>/data_<dataset>.pkl (default: %(default)s)")
    add("--emotion", default=None, help="mosei: a binary emotion, multilabel, or 7class")
    add("--from_begin", action="store_true", help="start from the beginning whatever --model_ckpt says")
    add("--model_ckpt", default=None, metavar="FOLDER", help="run folder whose checkpoint is the start")
    add("--device", default="auto", help="auto, cuda or cpu (default: %(default)s)")
    add("--epochs", default=1, type=int, help="default: %(default)s")
    add("--batch_size", default=32, type=int, help="dialogues (default: %(default)s)")
    add("--optimizer1", default="adam", choices=["sgd", "rmsprop", "adam", "adamw"], help="default: %(default)s")
    add("--scheduler", default="reduceLR", choices=["reduceLR", "none"], help="steps on dev NLL (default: %(default)s)")
    add("--learning_rate", default=3e-5, type=float, help="default: %(default)s")
    add("--weight_decay", default=1e-8, type=float, help="default: %(default)s")
    add("--drop_rate", default=0.3, type=float, help="default: %(default)s")
    add("--max_grad_norm", default=1.0, type=float, help="0: off (default: %(default)s)")
    add("--cl_loss_weight", default=0.2, type=float, help="contrastive loss (default: %(default)s)")
    add("--encoder_loss_weight", default=0.03, type=float, help="reconstruction loss (default: %(default)s)")
    add("--gate_reg_weight", default=0.01, type=float, help="gate regulariser (default: %(default)s)")
    add("--use_smooth_l1", action="store_true", help="SmoothL1 in place of MSE as reconstruction loss")
    add("--use_hierarchical_fusion", action="store_true", help="accepted; the hierarchical fusion is the default")
    add("--fusion", default="hierarchical", choices=["hierarchical", "auto"], help="default: %(default)s")
    add("--use_ulgm", action="store_true", help="unimodal heads")
    add("--unimodal_loss_weight", default=0.002, type=float, help="default: %(default)s")
    add("--ulgm_hidden_size", default=128, type=int, help="default: %(default)s")
    add("--wp", default=8, type=int, help="past utterances linked, -1: all (default: %(default)s)")
    add("--wf", default=8, type=int, help="future utterances linked, -1: all (default: %(default)s)")
    add("--n_speakers", default=2, type=int, help="accepted; the dataset says how many there are")
    add("--hidden_size", default=100, type=int, help="default: %(default)s")
    add("--rnn", default="transformer", choices=["lstm", "gru", "transformer"], help="default: %(default)s")
    add("--class_weight", action="store_true", help="classes weighted by inverse training frequency")
    add("--concat_gin_gout", action="store_true", help="the classifier sees the graph's input beside its output")
    add("--seqcontext_nlayer", default=4, type=int, help="default: %(default)s")
    add("--gnn_nheads", default=4, type=int, help="default: %(default)s")
    add("--use_highway", action="store_true", help="a highway layer before the classifier")
    add("--seed", default=24, type=int, help="default: %(default)s")
    return p  # fmt: skip


def overrides(arguments: argparse.Namespace) -> list[str]:
    """The Hydra form of the flags: every default is passed explicitly, so a change of run.py's defaults changes nothing here."""
    a = arguments
    flag = {True: "true", False: "false"}
    result = [
        f"data={DATASETS.get(a.dataset, a.dataset)}",
        f"modalities={''.join(letter for letter in LETTERS if letter in a.modalities)}",
        f"fusion={a.fusion}", "model=reference", f"loss={'smoothl1' if a.use_smooth_l1 else 'mse'}",
        "classification=nll", f"classification.class_weight={'inverse' if a.class_weight else 'none'}",
        "weights=basic", f"weights.encoder_loss_weight={a.encoder_loss_weight}",
        f"weights.cl_loss_weight={a.cl_loss_weight}", f"weights.gate_reg_weight={a.gate_reg_weight}", "weighting=fixed",
        f"optimizer={a.optimizer1}", f"optimizer.learning_rate={a.learning_rate}", f"optimizer.weight_decay={a.weight_decay}",
        f"training.epochs={a.epochs}", f"training.batch_size={a.batch_size}", f"training.max_grad_norm={a.max_grad_norm}",
        f"training.scheduler.name={a.scheduler}", f"model.dropout={a.drop_rate}", f"model.wp={a.wp}", f"model.wf={a.wf}",
        f"model.hidden_size={a.hidden_size}", f"model.context={a.rnn}", f"model.context_layers={a.seqcontext_nlayer}",
        f"model.graph_heads={a.gnn_nheads}", f"model.concat_gin_gout={flag[a.concat_gin_gout]}",
        f"model.use_highway={flag[a.use_highway]}", f"fusion.use_ulgm={flag[a.use_ulgm]}",
        f"fusion.unimodal_loss_weight={a.unimodal_loss_weight}", f"fusion.ulgm_hidden_size={a.ulgm_hidden_size}",
        f"device={a.device}", f"seed={a.seed}",
    ]  # fmt: skip
    if a.dataset != "synthetic":
        result.append(f"data.root={_quoted(a.data_dir_path)}")
    if a.emotion is not None:
        result.append(f"data.emotion={_quoted(a.emotion)}")
    if a.model_ckpt is not None and not a.from_begin:
        result.append(f"fork={_quoted(a.model_ckpt)}")
    return result + list(a.overrides)


def _quoted(value: str) -> str:
    """A value as Hydra's grammar reads it back unchanged: quotes and backslashes escaped inside single quotes."""
    if value and all(c.isalnum() or c in "./_-" for c in value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main(arguments: Sequence[str] | None = None) -> None:
    """Translate, show the Hydra form, train."""
    form = overrides(parser().parse_args(arguments))
    print("python run.py", shlex.join(form), flush=True)
    sys.argv = ["run.py", *form]
    from joyful.cli import train

    train()


if __name__ == "__main__":
    main()
