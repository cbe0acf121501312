"""Checkpoints, libraries, locks and edits that a run stumbles over."""

from pipeline.doctor.cause import Cause

TITLE = "Something is not what it was"
CAUSES = (
    Cause(
        "weights of another model",
        (
            "RuntimeError: Error(s) in loading state_dict for Model:",
            "size mismatch for output.weight: copying a param with shape torch.Size([10, 64]) from "
            "checkpoint, the shape in current model is torch.Size([10, 128]).",
            'Missing key(s) in state_dict: "hidden.0.weight".',
        ),
        "The code or the arguments of the model have changed since its weights were saved. The "
        "pipeline's own checkpoints are kept under a name made of code, parameters and data, so a "
        "training never meets another's; weights that you load yourself, and outputs that are not "
        "up to date, can be of other code.",
        (
            "`reprise plan` says what is not up to date; `dvc repro` makes it so",
            "weights from elsewhere: `build.pretrained` takes what fits by name and shape, and "
            "says what does not",
            "to use old weights, check out the code that they are of: `git checkout COMMIT` and "
            "`dvc checkout`",
        ),
        (
            r"Error\(s\) in loading state_dict",
            r"size mismatch for \S+: copying a param",
            r"(Missing|Unexpected) key\(s\) in state_dict",
        ),
    ),
    Cause(
        "a damaged checkpoint",
        (
            ".reprise/checkpoints/3f/00000004-00000000-ab.pt can't be read (its checksum is "
            "another); trying the one before it",
            "RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central "
            "directory",
        ),
        "A checkpoint was cut short, by a full disk or a power cut. The training takes the one "
        "before it; without any it begins anew.",
        ("nothing: it goes on by itself", "`reprise doctor` says whether the disk is full"),
        (r"\.pt can't be read \(", r"PytorchStreamReader failed"),
    ),
    Cause(
        "another version of a library",
        (
            "this environment is not the one that the results are recorded for",
            "ModuleNotFoundError: No module named 'torch'",
        ),
        "`dvc.lock` names the versions that made its results; under others, the same parameters "
        "could give other results under the same name. A stage stops before that.",
        (
            "`make setup`, then `source .venv/bin/activate`",
            "to move to another version: edit `constraints.txt`, then `make setup` and "
            "`reprise deps`",
        ),
        (
            r"this environment is not the one that the results are recorded for",
            r"No module named '(torch|polars|stages|pipeline|ruamel|pydantic)",
        ),
    ),
    Cause(
        "code that dvc.yaml does not list",
        (
            "the stage 'train' runs stages/extra.py (the module 'stages.extra'), which dvc.yaml "
            "does not list among its deps: a change there would rerun nothing",
            "stages/zoo/models/own.py:3: imports 'pandas', whose version dvc.yaml does not list "
            "for the stage 'build': another one would rerun nothing",
        ),
        "What a stage imports or opens must be among its dependencies, else an edit of it would "
        "rerun nothing, and the cache would tell old results for new ones.",
        (
            "`reprise deps` writes the imports and their libraries into `dvc.yaml`, or says why "
            "not; a file that is read goes into the stage's `deps` by hand",
        ),
        (
            r"whose version dvc\.yaml does not list",
            r"which dvc\.yaml does not list",
            r"don't hold what the code imports",
        ),
    ),
    Cause(
        "an edit while a stage ran",
        (
            "what this stage depends on was changed while it ran:",
            "stages/train/fit.py was edited at 10:31:07, 5 s after the stage began, and is needed "
            "only now: the stage can't have both",
        ),
        "A result of the old file would have been recorded beside the new one. The stage stops "
        "instead; the last outputs are back in place.",
        ("`dvc repro` again; for edits meanwhile, run in a second clone (`git worktree add`)",),
        (r"what this stage depends on was changed while it ran", r"s after the stage began"),
    ),
    Cause(
        "DVC finds its lock taken",
        (
            "ERROR: Unable to acquire lock. Most likely another DVC process is running or was "
            "terminated abruptly.",
            "ERROR: 'data/train/model.json' is busy, it is being blocked by:",
        ),
        "Two commands of DVC's in one folder wait for each other or fail. What a killed one has "
        "left is let go by the system, except a list of paths that was cut short.",
        (
            "wait for the other: `dvc --wait-for-lock repro`, or `reprise run --wait`",
            "`reprise doctor --fix` removes a damaged list when nobody needs it",
        ),
        (r"Unable to acquire lock", r"holds DVC's lock", r"is busy, it is being blocked by"),
    ),
    Cause(
        "it was stopped",
        (
            "preempted: the next run resumes from the last checkpoint",
            "train: interrupted; the last outputs are back in place",
        ),
        "Somebody or something has told it to end (Ctrl-C, SIGTERM, a job's time was up), and it "
        "has saved where it was.",
        ("`dvc repro`: it resumes, and ends with the same bytes",),
        (r"preempted: the next run resumes", r"interrupted; the last outputs are back"),
    ),
)
