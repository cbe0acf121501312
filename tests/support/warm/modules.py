"""What the warm processes load; of no library that starts threads or reads the environment then."""

COMMANDS = (
    *("dvc.cli", "dvc.commands.repro", "dvc.commands.status", "dvc.repo.reproduce", "dvc.stage"),
    *("dvc.dependency", "dvc.output", "dvc.ignore", "dvc.render", "dvc.scm", "dvc_data.index"),
    *("dvc.cachemgr", "dvc.data_cloud", "dvc.lock", "dvc.rwlock", "dvc.analytics", "dvc.compare"),
    *("dulwich.ignore", "dulwich.worktree", "flufl.lock", "zc.lockfile", "configobj"),
    *("networkx", "scmrepo.git", "jsonschema", "rich.table", "rich.console", "pygit2", "numpy"),
    *("dvc._debug", "dvc.dirs", "dvc_render.html", "dvc_render.vega", "dvc_render.plotly"),
    *("dvc_render.image", "flatten_dict", "platformdirs.unix", "pyparsing", "scmrepo.fs"),
    *(
        "pipeline.cli",
        "pipeline.params.check",
        "pipeline.commands.plan",
        "pipeline.commands.accept",
        "pipeline.commands.gc",
    ),
    # What Prefect is made of; not Prefect, which reads the environment.
    *("httpx", "pendulum", "griffe", "websockets.asyncio.client", "pydantic_settings", "amplitude"),
    *("opentelemetry.trace", "prometheus_client", "pathspec", "asgi_lifespan", "coolname", "anyio"),
    *("jsonschema", "psutil", "pygments.lexers", "dateutil.parser", "h2.connection", "cachetools"),
    *("pipeline.commands.garbage", "pipeline.commands.merge_lock", "pipeline.deps.deps"),
)
# What stages import sooner or later. Polars and ONNX Runtime start threads as they are imported: a
# fork would have none of them.
STAGES = (
    *("torch", "torch._dynamo", "torch.export._trace", "torch.onnx", "torch.utils.tensorboard"),
    *("great_expectations", "sklearn.metrics", "scipy.stats", "captum.attr", "optuna", "onnx"),
    *("safetensors.torch", "rich.table", "jsonschema"),
)
MODULES = {"commands": COMMANDS, "stages": STAGES}
