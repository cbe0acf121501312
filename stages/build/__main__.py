"""First weights of a model, from a schema and a name: `python -m stages.build`.

Reads `data/prepare/schema.json`; writes `data/build/model.json`, `weights.safetensors` and
`summary.txt`.
"""

from pathlib import Path

from stages.build.params import BuildParams
from stages.build.summary import check_gradients, summarise
from stages.common.params import Params
from stages.features.schema import read_schema
from stages.model.model import make_model, make_spec, save_model
from stages.runtime.stage import run_stage


def build(params: Params, out: Path) -> None:
    """Make the model, prove that it trains, write it down."""
    schema = read_schema(Path("data/prepare"))
    spec = make_spec(params.section("build", BuildParams).model, schema)
    model = make_model(spec, params.seed)
    check_gradients(model, spec, params.seed)

    summary = summarise(model, spec, params.seed)
    save_model(out, spec, model.state_dict(), "weights.safetensors")
    (out / "summary.txt").write_text(summary, encoding="utf-8")
    print(summary, end="")


if __name__ == "__main__":
    run_stage("build", build)
