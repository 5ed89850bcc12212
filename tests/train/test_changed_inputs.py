"""What a run reads may change while it is stopped: that is said, or refused where problems would come in another order."""

import json
from pathlib import Path

from rlcore.cli import main
from tests.refusals import refusal
from tests.tiny import write_recipe


def steps(folder: Path, count: int) -> list[str]:
    return ["train", str(folder / "recipe.yaml"), f"output={folder / 'run'}", f"stages.0.steps={count}"]


def test_changes_of_what_a_stopped_run_reads(tmp_path, capfd):
    write_recipe(tmp_path, stages=[{"name": "only", "steps": 1}], evaluate=None)
    main(steps(tmp_path, 1))
    data, reward = tmp_path / "train.jsonl", tmp_path / "my_reward.py"
    lines = data.read_text().splitlines()
    for other in (lines[:-1], lines[::-1]):
        data.write_text("\n".join(other))
        assert "come to them in another order" in refusal(capfd, *steps(tmp_path, 2))

    data.write_text("\n".join([lines[0].replace("Write", "Please write"), *lines[1:]]))
    main(steps(tmp_path, 2))
    assert "contents of data " in next(line for line in capfd.readouterr().out.splitlines() if "from step 2 on" in line)

    reward.write_text(f"{reward.read_text()}# another\n")
    main(steps(tmp_path, 3))
    said = next(line for line in capfd.readouterr().out.splitlines() if "from step 3 on" in line)
    assert f"contents of {reward} " in said
    assert "contents of data " not in said
    history = [json.loads(line)["changes"] for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [any("contents of" in key for key in changes) for changes in history] == [True, True]
