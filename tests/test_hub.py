"""Without a network: sizes that the package knows, and a hub that does not answer is asked and said once."""

import socketserver
import threading
from collections.abc import Iterator

import datasets
import pytest
from huggingface_hub import constants

from rlcore import doctor, hub
from rlcore.cli import main
from rlcore.data.table import read_hub
from rlcore.errors import UserError
from rlcore.plan.shapes import MODELS
from rlcore.policy import load_policy
from rlcore.recipe import load_recipe
from rlcore.recipe.schema import ModelConfig


@pytest.fixture
def silent(monkeypatch) -> Iterator[list[object]]:
    """A hub that hangs up on whoever connects; what is yielded are their addresses."""
    asked: list[object] = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.client_address)

    with socketserver.TCPServer(("127.0.0.1", 0), HangUp) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        hub.hub_trouble.cache_clear()
        yield asked
        server.shutdown()
    hub.hub_trouble.cache_clear()


@pytest.mark.parametrize("path", ["recipes/score_math_qwen2.5_1.5b.yaml", "recipes/score_math_llama_3.3_70b.yaml"])
def test_a_committed_recipe_is_planned_without_a_hub(silent, repository, capfd, path):
    main(["plan", str(repository / path)])
    assert "memory" in capfd.readouterr().out.lower()
    assert silent == []


def test_the_sizes_of_every_model_that_a_recipe_names_are_known(repository):
    texts = [path for path in (repository / "recipes").rglob("*.yaml") if "\nmodel:" in path.read_text()]
    named = {load_recipe(path).model.path for path in texts if "sizes:" not in path.read_text()}
    hub_names = {name for name in named if name and not (repository / name).exists() and name.count("/") == 1}
    assert hub_names
    assert hub_names <= MODELS.keys()


def test_a_silent_hub_is_said_once_and_at_once(silent):
    for name in ("someone/some-model", "someone/another"):
        with pytest.raises(
            UserError, match=f"{name} is not on this machine, and the hub, http://127.* does not answer"
        ):
            load_policy(ModelConfig(path=name))
    with pytest.raises(UserError, match=r"someone/rows is not on this machine, and the hub, .* does not answer"):
        read_hub("someone/rows", None, "train")
    assert len(silent) == 1


def test_doctor_says_whether_the_hub_answers(silent):
    (finding,) = [finding for finding in doctor.hugging_face() if finding.topic == "hub"]
    assert (finding.state, "does not answer" in finding.said) == ("lacking", True)
    assert "HF_ENDPOINT" in finding.remedy
