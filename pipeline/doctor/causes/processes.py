"""Several processes and several machines."""

from pipeline.doctor.cause import Cause

TITLE = "Several processes, several machines"
CAUSES = (
    Cause(
        "the processes can't meet",
        (
            "torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to "
            "the C10d store has failed. See inner exception for details.",
            "torch.distributed.DistNetworkError: The client socket has timed out after 60000ms "
            "while trying to connect to (node-1, 29400).",
            "torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients. "
            "1/2 clients joined.",
            "RuntimeError: Gloo connectFullMesh failed with [enforce fail at "
            "gloo/transport/tcp/pair.cc:144]",
        ),
        "Before the first step all processes report at one place, `PET_RDZV_ENDPOINT`, and then "
        "open connections to each other. One of them did not come, came somewhere else, or a "
        "firewall is between them.",
        (
            "the same `PET_NNODES` and `PET_RDZV_ENDPOINT` on each machine, with a name that each "
            "can resolve: `getent hosts NAME`",
            "from another machine: `nc -vz NAME 29400`. A name that the machine itself resolves to "
            "127.0.1.1 (Debian's `/etc/hosts`) listens only for itself",
            "with several network cards: `GLOO_SOCKET_IFNAME=eth0`, `NCCL_SOCKET_IFNAME=eth0`, and "
            "`PET_LOCAL_ADDR` for the address of this machine",
        ),
        (
            r"Rendezvous(Connection|Timeout|Closed|State)?Error",
            r"client socket has (timed out|failed)",
            r"waiting for clients\. \d+/\d+ clients joined",
            r"connectFullMesh failed|Gloo .*connect.*(timed out|refused)",
            r"wait timeout after \d+ms, keys: /none/",
        ),
    ),
    Cause(
        "a port is taken",
        (
            "torch.distributed.DistNetworkError: The server socket has failed to listen on any "
            "local network address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, "
            "message: address already in use",
            "port 8000 can't be used: Address already in use",
        ),
        "Another program listens there, often a run of your own that was killed and whose "
        "processes live on.",
        (
            "see who: `ss -ltnp | grep 29500`",
            "another port in `PET_RDZV_ENDPOINT`, or with `--port`",
        ),
        (r"EADDRINUSE|address already in use",),
    ),
    Cause(
        "NCCL fails",
        (
            "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1690, "
            "unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5",
            "[rank0]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=42, "
            "OpType=ALLREDUCE, Timeout(ms)=600000) ran for 600026 milliseconds before timing out.",
            "torch.distributed.DistBackendError: Duplicate GPU detected : rank 1 and rank 0 both "
            "on CUDA device 1000",
        ),
        "NCCL carries tensors between GPUs. An 'unhandled system error' is most often the network "
        "or shared memory of a container; a timeout of the watchdog says that one process did not "
        "come to the same operation: it has died, hangs, or computes something else than the "
        "others. 'Duplicate GPU' means more processes than GPUs.",
        (
            "run once with `NCCL_DEBUG=INFO`: the line before the error says what it tried",
            "`NCCL_SOCKET_IFNAME=eth0` for the network card; `NCCL_P2P_DISABLE=1`, "
            "`NCCL_IB_DISABLE=1` find out which way is broken",
            "a container needs `--shm-size=2g --ulimit memlock=-1`",
            "at most as many processes as GPUs: `PET_NPROC_PER_NODE=gpu`",
            "after a timeout, look for the first error of any process, not the last",
        ),
        (
            r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclInternalError",
            r"Watchdog caught collective operation timeout",
            r"Duplicate GPU detected",
        ),
        recorded=True,
    ),
    Cause(
        "a process was lost",
        (
            "process 1 has lost the others: [/gloo/transport/tcp/pair.cc:547] Connection closed by "
            "peer [127.0.0.1]:40312",
            "training in several processes failed (torchrun: 1); see above",
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
        ),
        "One of several processes has ended, and the others have noticed. torchrun starts all of "
        "them again, three times (`PET_MAX_RESTARTS`), and they resume from the last checkpoint; "
        "here it has given up. What the others say is only that they are alone: the reason stands "
        "with the one that ended first.",
        (
            "look further up for the first error of any process",
            "killed without a word: the memory (above), or the other machine has gone",
            "run it again: it resumes. To see the error itself, train in one process: "
            "`PET_NPROC_PER_NODE=1`",
        ),
        (
            r"has lost the others",
            r"Connection closed by peer|Connection reset by peer",
            r"training in several processes failed \(torchrun",
            r"ChildFailedError",
        ),
    ),
    Cause(
        "the machines would not train the same",
        (
            "the machines would not train the same: each needs the same commit, params.yaml, data "
            "and versions of libraries",
            "the machines start different numbers of processes: PET_NPROC_PER_NODE must be the "
            "same on each, not [1, 2]",
        ),
        "Several machines train one model: each must have the same rows, code and parameters, else "
        "their gradients are of different things.",
        (
            "`git rev-parse HEAD`, `git status` and `dvc status` on each",
            "`reprise doctor` on each, for the versions of libraries",
        ),
        (
            r"the machines would not train the same",
            r"machines start different numbers of processes",
        ),
    ),
)
