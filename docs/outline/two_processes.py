"""Train one model in several processes: docs/outline/5_devices.md explains it.

Run it with `torchrun --standalone --nproc-per-node 2 docs/outline/two_processes.py`.
"""

import polars
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

NUM_EPOCHS = 5
BATCH_SIZE = 64


def main() -> None:
    """Join the other processes, train on a share of each batch, and compare the weights."""
    torch.set_num_threads(1)
    # torchrun has set who is who in the environment; on GPUs the backend is "nccl".
    dist.init_process_group("gloo")
    rank, num_processes = dist.get_rank(), dist.get_world_size()
    table = polars.read_parquet("data/raw/digits.parquet")
    images = torch.tensor(table["image"].to_numpy(), dtype=torch.float32) / 16
    labels = torch.tensor(table["label"].to_numpy())

    # The same seed everywhere: the same first weights, and the same order of the rows.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(parallel.parameters(), lr=3e-3)
    loss_of = nn.CrossEntropyLoss()
    for epoch in range(1, NUM_EPOCHS + 1):
        total = torch.zeros(())
        for batch in torch.randperm(1600).split(BATCH_SIZE):
            own = batch[rank::num_processes]
            optimizer.zero_grad()
            loss = loss_of(parallel(images[own]), labels[own])
            # DistributedDataParallel averages the gradients of all processes in here.
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(own)
        # The sum over all processes, in all processes.
        dist.all_reduce(total)
        if rank == 0:
            print(f"epoch {epoch} train loss {total.item() / 1600:.4f}")

    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    everybody = [torch.empty_like(weights) for _ in range(num_processes)]
    dist.all_gather(everybody, weights)
    assert all(torch.equal(weights, other) for other in everybody)
    right = (model(images[1600:]).argmax(dim=1) == labels[1600:]).double().mean()
    if rank == 0:
        print(f"{num_processes} processes with equal weights; accuracy {right.item():.2f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
