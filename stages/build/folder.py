"""A folder as `build.pretrained`: what it says of the model, and whether the rows are as it wants.

From build on `model.json` has all that it says, so that the folder is read by no other stage.
"""

from pathlib import Path

from stages.build.architecture import NAME, fill_arguments
from stages.build.params import BuildParams
from stages.common.config import ClassSpec
from stages.common.errors import Problem, UserError
from stages.features.model_folder import KEY, TOKENIZER, find_preprocessor, read_scale
from stages.features.schema import Feature, Schema
from stages.features.words.tokens import find_tokenizer, with_places
from stages.model.model import ModelSpec, check_said, make_spec

# Between the same number written with more digits and with fewer.
CLOSE = 1e-6


def find_folder(section: BuildParams) -> Path | None:
    """The folder that the model starts from; None: it starts from a file, or from nothing."""
    path = None if section.pretrained is None else Path(section.pretrained)
    return path if path is not None and path.is_dir() else None


def find_spec(section: BuildParams, schema: Schema) -> ModelSpec:
    """The spec of `build.model`, with the architecture that a folder says.

    Raises UserError for a folder that can't be read so, and where the columns are not prepared as
    its model wants them.
    """
    return make_spec(find_model(section, schema), schema)


def find_model(section: BuildParams, schema: Schema) -> ClassSpec:
    """`build.model` with the arguments that a folder says. Raises UserError as `find_spec` does."""
    folder = find_folder(section)
    if section.model.name == NAME:
        check_said(section.model)
    if folder is None:
        return section.model
    model = fill_arguments(section.model, folder)
    check_prepared(folder, schema)
    return model


def check_prepared(folder: Path, schema: Schema) -> None:
    """Raise UserError where the columns are not prepared as the model in `folder` wants them."""
    problems = [*_check_texts(folder, schema), *_check_images(folder, schema)]
    if problems:
        raise UserError(*problems)


def _check_texts(folder: Path, schema: Schema) -> list[Problem]:
    """Mistakes in how the columns of text are cut."""
    features = schema.of_kind("text")
    has_own = (folder / TOKENIZER).exists()
    if not features or not (has_own or (folder / "config.json").exists()):
        return []
    if not has_own and find_preprocessor(folder) is not None:
        return []  # a model of images, beside which texts are words
    own, _ = find_tokenizer(folder)
    return [problem for f in features if (problem := _check_text(f, own, folder)) is not None]


def _check_text(feature: Feature, own: str, folder: Path) -> Problem | None:
    if feature.tokenizer is None:
        message = (
            f"'{feature.name}' is cut into words of this table; the model in {folder} knows the "
            "tokens of its own tokenizer"
        )
        return Problem(message, KEY, "null", (str(folder),))
    if with_places(feature.tokenizer, None) != own:
        message = f"'{feature.name}' is cut by another tokenizer than {folder / TOKENIZER}"
        return Problem(message, KEY, allowed=(str(folder),))
    return None


def _check_images(folder: Path, schema: Schema) -> list[Problem]:
    """Mistakes in the scale of the images."""
    images = schema.of_kind("image")
    if not images or find_preprocessor(folder) is None:
        return []
    wanted, had = read_scale(folder, (images[0].shape or [1])[0]), images[0].scale
    if wanted is None:
        return []  # the file says none, and so any is right
    if had is not None:
        pairs = zip([*wanted.mean, *wanted.std], [*had.mean, *had.std], strict=True)
        if all(abs(one - other) <= CLOSE for one, other in pairs):
            return []
    scale = "that of the train rows" if had is None else f"mean {had.mean} and std {had.std}"
    message = (
        f"the scale of the images is {scale}; the model in {folder} was trained with mean "
        f"{wanted.mean} and std {wanted.std}"
    )
    if had is not None and had.said:
        print(f"note  {message}. prepare.normalize goes before it")
        return []
    return [Problem(message, KEY, allowed=(str(folder),))]
