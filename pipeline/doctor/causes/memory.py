"""Memory, disks and handles that ran out."""

from pipeline.doctor.cause import Cause

TITLE = "Something ran out"
CAUSES = (
    Cause(
        "the memory is full",
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 512000000 bytes.",
            "the memory does not hold a single row of the batch; try a smaller model",
        ),
        "A step needs memory for the weights, for their gradients, for what the optimizer keeps "
        "(AdamW: twice the weights), and, for each row that goes through the model at once, for "
        "the output of every layer. The last part is the one that a setting changes: a batch can "
        "go through in parts, and its gradient is the same. The training halves the part by "
        "itself; it stops where one row is too many, or where one of several processes can't be "
        "started again. `reprise doctor` measures how many rows fit.",
        (
            "set `train.micro_batch_size` to what fits: the same training, within rounding",
            "a smaller model (`build.model`), where not even one row fits",
            "on a GPU `train.precision: bf16` halves what the layers keep",
            "data that fill the memory: `REPRISE_DATA=mapped` leaves them on the disk",
            "several GPUs can divide the weights: `train.parallel: fsdp`",
        ),
        (
            r"OutOfMemoryError",
            r"CUDA out of memory",
            r"can't allocate memory|not enough memory",
            r"\bMemoryError\b",
            r"does not hold a single row of the batch",
            r"is out of memory with \d+ rows at once",
            r"CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
        ),
        ("memory",),
    ),
    Cause(
        "the process was killed",
        (
            "ERROR: failed to reproduce 'train': failed to run: python -m stages.train, exited "
            "with -9",
            "Killed",
            "exit code 137",
        ),
        "The system has ended it with SIGKILL, which no program can answer, so nothing was "
        "written. Nearly always the memory of the machine, of the container or of the job was "
        "full, and the kernel chose this process. The outputs are gone for the moment, not lost: "
        "`dvc repro` brings them back or makes them anew, and a training resumes from its last "
        "checkpoint.",
        (
            "see whether it was the memory: `dmesg | grep -i 'killed process'`; in a container "
            "`cat /sys/fs/cgroup/memory.events`; in Kubernetes `kubectl describe pod` says "
            "OOMKilled",
            "fewer rows at once: `train.micro_batch_size`",
            "fewer workers (`train.dataset`: `num_workers`), fewer processes "
            "(`PET_NPROC_PER_NODE`), fewer trainings side by side (`REPRISE_AT_ONCE=1`): each has "
            "memory of its own",
            "data that fill the memory: `REPRISE_DATA=mapped`",
        ),
        (
            r"exited with -9\b",
            r"exit(ed with)? code:? (137|-9)\b",
            r"^Killed$",
            r"Signal 9 \(SIGKILL\)",
            r"ended by SIGKILL",
        ),
        ("memory",),
    ),
    Cause(
        "shared memory is full",
        (
            "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Bus error. It is "
            "possible that dataloader's workers are out of shared memory.",
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_42_1_0>: "
            "Resource temporarily unavailable (11)",
            "RuntimeError: unable to write to file </torch_42_1_0>: No space left on device (28)",
        ),
        "Workers hand their batches over in `/dev/shm`, a disk in memory. A container has 64 MB "
        "of it unless it was asked for more.",
        (
            "start the container with more: `docker run --shm-size=2g`; in Kubernetes an "
            "`emptyDir` with `medium: Memory` at `/dev/shm`",
            "fewer workers in `train.dataset` (`num_workers: 0` needs none)",
        ),
        (
            r"killed by signal: Bus error",
            r"shared memory\(shm\)|shared memory object|out of shared memory",
            r"unable to (write to|resize|mmap \d+ bytes from|open) (shared memory |the )?"
            r"(file|object) </torch_",
        ),
    ),
    Cause(
        "a worker of the dataset has died",
        (
            "a worker has died (DataLoader worker (pid 4242) exited unexpectedly); fewer take less "
            "memory, and 0 tell where it was",
        ),
        "A process that makes rows has ended without a word: for want of memory, or by a crash of "
        "a library that is no Python.",
        (
            "`num_workers: 0` in `train.dataset` runs the dataset in the training itself, where an "
            "error shows its line",
            "fewer workers, where it was the memory",
        ),
        (r"a worker has died", r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) exited unexpectedly"),
        ("memory",),
    ),
    Cause(
        "the disk is full",
        (
            "OSError: [Errno 28] No space left on device",
            "the last outputs could not be put back (No space left on device): data/train/model",
            "OSError: [Errno 122] Disk quota exceeded",
        ),
        "An output, a checkpoint or DVC's cache could not be written. A stage writes new outputs "
        "beside the last ones, so that it needs room for both. What was not put back lies in the "
        "cache and comes back when there is room.",
        (
            "`reprise gc` shows what of the cache nothing needs any more, and frees it",
            "`df -h . /tmp` and `df -i .`: the temporary folder, and the number of files, can be "
            "full as well",
            "move the cache to a larger disk: `dvc cache dir --local /big/dvc-cache`",
            "then `dvc repro`",
        ),
        (
            r"^(?!.*torch_).*No space left on device",
            r"Disk quota exceeded",
            r"^(?!.*torch_).*File too large",
        ),
    ),
    Cause(
        "too many open files",
        (
            "OSError: [Errno 24] Too many open files",
            "RuntimeError: received 0 items of ancdata",
        ),
        "Each process may have a number of files and connections open, often 1024 or 256. Workers "
        "of a dataset take some for each batch that waits.",
        (
            "`ulimit -n 4096` in the shell that starts the run (a service: `LimitNOFILE=`)",
            "fewer workers in `train.dataset`",
        ),
        (r"Too many open files", r"received \d+ items of ancdata"),
    ),
)
