"""The W&B workspace of a project: its sections and panels, made from the measurements that name them."""

import json
from typing import Any

from rlcore.errors import UserError, one_line
from rlcore.track.dashboard import EVAL, TRAINER
from rlcore.track.measurements import MEASUREMENTS

NAME = "rlcore"
MODES = ("greedy", "sampled")

SECTIONS = ("Held-out accuracy", "Training accuracy", "Behaviour", "Learner", "Time")


def _panels() -> dict[str, dict[str, tuple[str, str]]]:
    """`PANELS`, from the measurements that name a panel; those of evaluations have one for each mode."""
    drawn: dict[str, dict[str, list[str]]] = {section: {} for section in SECTIONS}
    for each in (each for section in MEASUREMENTS.values() for each in section if each.panel):
        section, title = each.panel.split(" / ")
        for mode in MODES if "{mode}" in each.name else ("",):
            names = drawn[section].setdefault(f"{mode}: {title}" if mode else title, [])
            names.append(each.name.replace("{mode}", mode).replace("{n}", r"\d+"))
    drawn["Behaviour"]["alarms"] = ["alarm/.+"]
    return {
        section: {
            title: (EVAL if names[0].startswith("eval/") else TRAINER, "|".join(names))
            for title, names in titles.items()
        }
        for section, titles in drawn.items()
    }


PANELS = _panels()
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
                panels.LinePlot(title=title, x=axis, metric_regex=f"^({names})$")
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
    """The request that would be sent to W&B, as JSON."""
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
        raise UserError(f"W&B did not take the workspace: {one_line(error)}") from None
    return str(view.url)
