"""What of the NCCL and IPC transfers runs without a GPU: what is announced, to whom, and by which error it ends."""

import pytest
import torch

pytest.importorskip("vllm", reason="vLLM is not installed")

from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerWeightTransferEngine

from rlcore.rollout.servers.direct import LearnerSource, ManyServers
from tests.rollout.servers.running import Stub, post


@pytest.fixture
def stubs():
    made = [Stub(), Stub()]
    for stub in made:
        post(stub.url, "/weight_info")
    yield made
    for stub in made:
        stub.kill()


def test_the_source_yields_what_it_announced_in_tensors_that_stay():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2).bfloat16())
    source = LearnerSource(model, torch.device("cpu"))
    assert source.size == (3 * 4 + 4) * 4 + (4 * 2 + 2) * 2
    gathered = torch.zeros(12)

    def one_buffer_for_all():
        for name, parameter in model.named_parameters():
            if parameter.dtype == torch.float32:
                gathered[: parameter.numel()] = parameter.detach().view(-1)
                yield name, gathered[: parameter.numel()].view(parameter.shape)
            else:
                yield name, parameter

    for _ in range(2):
        source.weights = one_buffer_for_all()
        pairs = dict(NCCLTrainerWeightTransferEngine._checked_iter(source, source.metadata()))
        assert all(torch.equal(pairs[name], parameter) for name, parameter in model.named_parameters())


def test_each_servers_workers_get_ranks_of_their_own_and_all_take_the_label(stubs):
    client = ManyServers([(stubs[0].url, 4), (stubs[1].url, 2)], deadline=10)
    client.init_weight_transfer_engine({"rank_offset": 1, "world_size": 7})
    assert [post(stub.url, "/seen")["init"] for stub in stubs] == [
        {"rank_offset": 1, "world_size": 7},
        {"rank_offset": 5, "world_size": 7},
    ]
    client.label = "run:3"
    client.start_weight_update()
    client.finish_weight_update()
    assert [post(stub.url, "/weight_info")["weight_version"] for stub in stubs] == ["run:3", "run:3"]


def test_an_error_names_the_phase_and_the_server(stubs):
    client = ManyServers([(stub.url, 1) for stub in stubs], deadline=10)
    stubs[1].kill()
    with pytest.raises(RuntimeError, match=f"start of the update on {stubs[1].url}"):
        client.start_weight_update()
