"""The launch files: readable by their tools, and a Slurm job of two nodes on two loopback addresses.

Slurm's own commands are stand-ins here that do as much as the job file asks of them; torchrun, its rendezvous, its
signals and the training are real.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from transformers import Qwen2Config

from tests.processes import python, torchrun
from tests.tiny import figures, write_recipe

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])

SRUN = """#!{python}
import os, signal, subprocess, sys, time
split = next(i for i, word in enumerate(sys.argv) if i and not word.startswith("--"))
options = dict(word.split("=", 1) for word in sys.argv[1:split] if "=" in word)
nodes = options["--nodelist"].split(",")
assert options["--nodes"] == options["--ntasks"] == str(len(nodes)), sys.argv
command = sys.argv[split:]
with open(os.environ["SAID"], "a") as said:
    said.write(" ".join([*nodes, *command]) + "\\n")
if "TRAIN" in os.environ and command[0] == "torchrun":
    tasks = []
    for node in nodes:
        local = [command[0], "--local-addr", node, *command[1:]]
        tasks.append(subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *local[1:]]))
else:
    deadline = time.monotonic() + 120
    while "SERVERS" in os.environ and "serve.sh" not in open(os.environ["SAID"]).read():  # learners wait for servers
        assert time.monotonic() < deadline, "no server was started"
        time.sleep(0.01)
    tasks = [subprocess.Popen(["sleep", "600" if "serve.sh" in command[0] else "0"]) for _ in nodes]
signal.signal(signal.SIGTERM, lambda *_: [task.send_signal(signal.SIGTERM) for task in tasks])
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >>"$SAID"
if [ "$1" = show ]; then printf '127.0.0.1\\n127.0.0.2\\n'; fi
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_parse(script):
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        checked = subprocess.run(["shellcheck", "--shell=bash", "--exclude=SC1091", str(script)], capture_output=True)
        assert checked.returncode == 0, checked.stdout.decode()


def test_the_kubernetes_job_names_its_nodes_alike():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert job["spec"]["parallelism"] == job["spec"]["completions"] == int(variables["NODES"])
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert f"{job['metadata']['name']}-0.{service['metadata']['name']}:" in container["args"][0]
    assert int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    assert (LAUNCH.parent / variables["RECIPE"]).is_file()
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_a_pod_with_a_recipe_that_cannot_be_read_ends_with_2_and_by_other_failures_with_their_codes(tmp_path):
    _, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {**os.environ, "RECIPE": "no.yaml"}
    command = [*container["command"], *container["args"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("rlcore: recipe no.yaml")
    (tmp_path / "rlcore").write_text("#!/bin/sh\nexit 137\n")
    (tmp_path / "rlcore").chmod(0o755)
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    assert subprocess.run(command, env=environment, check=False).returncode == 137


def test_the_quickstart_takes_settings(tmp_path):
    """With a clone in which all is installed, and a stand-in for rlcore that says what it is asked."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    shutil.copy(LAUNCH.parent / "pyproject.toml", tmp_path)
    commands = tmp_path / ".venv" / "bin"
    commands.mkdir(parents=True)
    for name in ("python", "rlcore"):
        (commands / name).write_text('#!/bin/sh\necho "$0 $*"\n')
        (commands / name).chmod(0o755)
    checked = subprocess.run(["cksum", "pyproject.toml"], cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / ".venv" / "installed").write_text(f"{checked.stdout.strip()} \n")
    done = subprocess.run([tmp_path / "launch" / "quickstart.sh", "seed=3"], capture_output=True, text=True, check=True)
    assert done.stdout.split("/bin/")[1:] == ["rlcore paper-table recipes/quickstart --set seed=3\n"]


def test_the_servers_of_kubernetes_have_the_names_and_the_claim_that_the_job_uses():
    file = (LAUNCH / "kubernetes_servers.yaml").read_text()
    service, policy, servers = yaml.safe_load_all(file)
    (_, job) = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    pod, learners = (made["spec"]["template"]["spec"] for made in (servers, job))
    name = f"{servers['metadata']['name']}-{{}}.{service['metadata']['name']}:8000"
    assert all(f"http://{name.format(number)}" in file for number in range(servers["spec"]["replicas"]))
    assert servers["spec"]["serviceName"] == service["metadata"]["name"]
    labels = servers["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == labels
    ((source,),) = ([*way["from"]] for way in policy["spec"]["ingress"])
    assert source["podSelector"]["matchLabels"] == {"job-name": job["metadata"]["name"]}
    assert pod["volumes"][0]["persistentVolumeClaim"] == learners["volumes"][0]["persistentVolumeClaim"]
    variables = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    assert (LAUNCH.parent / variables["RECIPE"]).is_file()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def slurm(folder: Path, *arguments: object, **settings: str) -> subprocess.Popen[str]:
    """Starts the job file as Slurm would on two nodes of one GPU each."""
    commands = folder / "slurm-commands"
    commands.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PYTHONPATH": str(LAUNCH.parent),
        "SAID": str(folder / "said"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_SUBMIT_DIR": str(LAUNCH.parent),
        "RDZV_PORT": str(free_port()),
        **settings,
    }
    command = ["bash", str(LAUNCH / "slurm.sbatch"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


STAGES = [{"name": "one", "steps": 4, "reward": [0, 1], "kl": [0.1, 0.01]}]


def test_two_nodes_train_like_one_node_of_two_processes_and_go_on_after_a_signal(tmp_path):
    """Two agents meet over the loopback; USR1, as before the time limit, saves and queues the job again."""
    recipe = write_recipe(tmp_path, stages=STAGES, evaluate=None, checkpoint={"every": 1})
    assert torchrun(2, "-m", "rlcore", "train", recipe, f"output={tmp_path / 'alone'}").returncode == 0

    output = tmp_path / "nodes"
    job = slurm(tmp_path, recipe, f"output={output}", TRAIN="yes")
    deadline = time.monotonic() + 120
    while not (output / "metrics.jsonl").exists() or not (output / "metrics.jsonl").read_text():
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < deadline, "no step was taken"
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    printed, _ = job.communicate(timeout=900)
    assert job.returncode == 0, printed
    assert "scontrol requeue 7" in (tmp_path / "said").read_text()
    assert len(list((output / "checkpoints").glob("step-*"))) >= 1

    assert torchrun(2, "-m", "rlcore", "train", recipe, f"output={output}").returncode == 0
    one, two = figures(tmp_path / "alone"), figures(output)
    assert [record["step"] for record in two] == [1, 2, 3, 4]
    for record, expected in zip(two, one, strict=True):
        for name, value in expected.items():
            assert record[name] == (value if name == "stage" else pytest.approx(value, rel=1e-4, abs=1e-6)), name


def test_servers_get_the_last_nodes_and_learners_their_urls(tmp_path):
    recipe = write_recipe(tmp_path)
    job = slurm(tmp_path, recipe, "seed=1", SERVERS="1", WEIGHTS_FOLDER=str(tmp_path / "weights"))
    printed, _ = job.communicate(timeout=900)
    assert job.returncode == 0, printed
    said = (tmp_path / "said").read_text().splitlines()
    (learner,) = [line for line in said if " torchrun " in line]
    (server,) = [line for line in said if "serve.sh" in line]
    assert learner.startswith("127.0.0.1 torchrun --nnodes 1:1 --nproc-per-node 1 ")
    assert server.startswith("127.0.0.2 launch/serve.sh ")
    for line in (learner, server):
        assert "rollout.mode=servers rollout.servers=[http://127.0.0.2:8000]" in line
        assert f"rollout.vllm.weights_folder={tmp_path / 'weights'}" in line
    assert "scontrol requeue" not in "".join(said)


def test_more_servers_than_nodes_is_refused(tmp_path):
    job = slurm(tmp_path, "recipe.yaml", SERVERS="2")
    printed, _ = job.communicate(timeout=20)
    assert job.returncode == 2
    assert "SERVERS=2 leaves no node of 2 to learn" in printed


def test_the_server_command_follows_the_recipe(tmp_path):
    """With a stand-in for vLLM: what it would be started with."""
    (tmp_path / "vllm").write_text('#!/bin/sh\necho "$VLLM_SERVER_DEV_MODE $*"\n')
    (tmp_path / "vllm").chmod(0o755)
    Qwen2Config(hidden_size=64, num_attention_heads=2).save_pretrained(tmp_path / "model")
    path = write_recipe(tmp_path, model={"path": "./model", "dtype": "bfloat16"}, rollout={"slots": 7})
    settings = {"tensor_parallel": 8, "gpu_memory_utilization": 0.9, "args": {"seed": 3}}
    settings["command"] = f"{tmp_path}/vllm serve"
    environment = {**os.environ, "PORT": "8123", "PYTHONPATH": str(LAUNCH.parent)}

    overrides = "rollout.slots=99", f"rollout.vllm={json.dumps(settings)}", "evaluate.attempts=3"
    command = [LAUNCH / "serve.sh", path, *overrides]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"1 serve {tmp_path}/model --host 0.0.0.0 --port 8123 ")
    for option in (
        "--dtype bfloat16",
        "--max-num-seqs 99",
        f"--max-model-len {64 + 3 * (8 + 512)}",
        "--gpu-memory-utilization 0.9",
        "--logprobs-mode processed_logprobs",
        "--tensor-parallel-size 8 --data-parallel-size 1",
        '--weight-transfer-config {"backend": "rlcore"}',
        "--enable-scale-out",
        "--seed 3",
    ):
        assert f" {option}" in done.stdout
    refused = python("-m", "rlcore.rollout.servers.serve", "no.yaml")
    assert refused.returncode == 2
    assert refused.stderr.startswith("rlcore: ")
    assert "Traceback" not in refused.stderr
