"""The W&B workspace of a project, defined here: its sections and panels, in the order of this room's README."""

import json
from typing import Any

from rlcore.errors import UserError
from rlcore.track.dashboard import EVAL, TRAINER

NAME = "rlcore"
MODES = ("greedy", "sampled")

PANELS: dict[str, dict[str, tuple[str, str]]] = {
    "Held-out accuracy": {
        f"{mode}: {title}": (EVAL, f"eval/{mode}/{names}")
        for mode in MODES
        for title, names in [("accuracy of each attempt", r"t\d+"), ("Δ", "delta"), ("flips", "(i_to_c|c_to_i)")]
    },
    "Training accuracy": {
        "accuracy of each attempt": (TRAINER, r"train/t\d+"),
        "Δ": (TRAINER, "train/delta"),
        "flips": (TRAINER, "train/(i_to_c|c_to_i)"),
        "reward of the last attempt": (TRAINER, "train/reward"),
        "sandbagging: base t1 - t1": (TRAINER, "train/sandbagging"),
    },
    "Behaviour": {
        "copying: answers that change": (TRAINER, "train/answer_change"),
        "copying: edit distance ratio": (TRAINER, "train/edit_ratio"),
        "tokens of each attempt": (TRAINER, r"train/tokens_t\d+"),
        "truncated attempts": (TRAINER, r"train/truncated_t\d+"),
        "dead groups": (TRAINER, "train/dead_groups"),
        "reward failures": (TRAINER, "train/unscored"),
        "alarms": (TRAINER, "alarm/.+"),
    },
    "Learner": {
        "KL of each attempt from the reference": (TRAINER, r"learner/kl_t\d+"),
        "entropy of each attempt": (TRAINER, r"learner/entropy_t\d+"),
        "sampler against learner, KL": (TRAINER, "learner/mismatch_kl"),
        "gradient norm": (TRAINER, "learner/grad_norm"),
        "clipped tokens": (TRAINER, "learner/clip_fraction"),
        "loss": (TRAINER, "learner/(policy_)?loss"),
        "learning rate": (TRAINER, "learner/lr"),
        "optimizer steps passed over": (TRAINER, "learner/skipped"),
    },
    "Time": {"seconds of each phase": (TRAINER, "time/.+")},
}
"""Section, title of the panel, its step axis and a regular expression of the measurements that it draws."""


def workspace(project: str, entity: str) -> Any:
    """The `wandb_workspaces` workspace: a section for each of `PANELS`, then trajectories and histograms."""
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ModuleNotFoundError:
        raise UserError("rlcore dashboard needs wandb-workspaces: pip install 'rlcore[dashboard]'") from None
    sections = [
        workspaces.Section(
            name=section,
            panels=[
                panels.LinePlot(title=title, x=axis, metric_regex=f"^{names}$")
                for title, (axis, names) in drawn.items()
            ],
            is_open=True,
        )
        for section, drawn in PANELS.items()
    ]
    seen = [panels.WeavePanelSummaryTable(table_name=f"{part}/trajectories") for part in ("eval", "train")]
    trajectories = workspaces.Section(name="Trajectories", panels=[*seen], is_open=True)
    return workspaces.Workspace(name=NAME, entity=entity, project=project, sections=[*sections, trajectories])


def workspace_json(project: str, entity: str) -> str:
    """What would be sent to W&B, as JSON."""
    return json.dumps(json.loads(workspace(project, entity)._to_model().model_dump_json(by_alias=True)), indent=1)


def save_workspace(project: str, entity: str | None) -> str:
    """Saves the workspace to W&B and returns its address. Raises UserError without a login or where W&B refuses."""
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise UserError("there is no W&B login here: run `wandb login`, or give --print to see the workspace as JSON")
    try:
        view = workspace(project, entity or str(wandb.Api().default_entity))
        view.save()
    except (wandb.Error, ValueError, OSError) as error:
        raise UserError(f"W&B did not take the workspace: {' '.join(str(error).split())}") from None
    return str(view.url)
