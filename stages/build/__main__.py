"""First weights of a model, from a schema and a name: `python -m stages.build`.

Reads `data/prepare/schema.json`; writes `data/build/model.json`, `weights.safetensors`,
`summary.txt` and `pretrained.safetensors`, what `build.pretrained` holds.
"""

from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from stages.build.architecture import read_weights
from stages.build.folder import find_folder, find_spec
from stages.build.params import BuildParams
from stages.build.pretrained import compare, read_pretrained
from stages.build.probe import find_unread
from stages.build.summary import check_gradients, summarise
from stages.build.unsaved import check_unsaved
from stages.common.params import Params
from stages.features.schema import read_schema
from stages.model.model import (
    PRETRAINED_FILE,
    make_model,
    save_model,
    take_pretrained,
)
from stages.runtime.stage import run_stage


def build(params: Params, out: Path) -> None:
    """Make the model, prove that it trains, write it down."""
    schema = read_schema(Path("data/prepare"))
    section = params.section("build", BuildParams)
    spec = find_spec(section, schema)
    model = make_model(spec, params.seed)
    check_gradients(model, spec, params.seed)
    check_unsaved(model, make_model(spec, params.seed + 1), spec, params.seed)
    if unread := find_unread(model, spec, params.seed):
        print(f"warning  {spec.name} looks at no {' or '.join(unread)}: no score depends on it")

    summary = summarise(model, spec, params.seed)
    pretrained: dict[str, Tensor] = {}
    if section.pretrained is not None:
        folder = find_folder(section)
        if folder is None:
            pretrained = read_pretrained(section.pretrained, model.state_dict())
        else:
            pretrained = read_weights(spec, folder)
        summary += "\n" + compare(model, pretrained, section.pretrained)
        take_pretrained(model, pretrained)
    save_model(out, spec, model.state_dict(), "weights.safetensors")
    # For replicas and winners of tune, whose other weights are drawn by themselves.
    (out / PRETRAINED_FILE).write_bytes(save(pretrained))
    (out / "summary.txt").write_text(summary, encoding="utf-8")
    print(summary, end="")


if __name__ == "__main__":
    run_stage("build", build)
