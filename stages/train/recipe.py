"""A recipe, or the recipes of an ensemble, and the trainings that they come to."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from stages.common.config import Overrides, validate
from stages.common.errors import Problem, UserError
from stages.common.files import read_json
from stages.common.params import Params
from stages.common.yamlfile import read_yaml
from stages.features.schema import Schema, read_schema
from stages.model.model import ModelSpec, read_spec
from stages.training.compatibility import check_members
from stages.training.data.folds import Fold
from stages.training.params import EnsembleMember, TrainParams
from stages.training.recipe import (
    BUILT,
    PREPARED,
    override_model,
    override_train,
    seed_of,
    seed_of_fold,
    seed_of_member,
)

BEST, PROPOSAL = Path("data/tune/best.yaml"), Path("data/tune/ensemble.json")
KEY = "train.ensemble"


@dataclass(frozen=True)
class Trainings:
    """The trainings of a stage by their numbers: the members of replica 0, each with its folds, ….

    `folds` 0: a member is one training.
    """

    replicas: int
    folds: int
    members: int = 1

    @property
    def per_replica(self) -> int:
        """The number of those whose mean is a replica."""
        return self.members * max(1, self.folds)

    @property
    def count(self) -> int:
        """The number of all."""
        return self.replicas * self.per_replica

    def place(self, number: int) -> tuple[int, int, int]:
        """The replica, the member and the fold of a training."""
        replica, rest = divmod(number, self.per_replica)
        return replica, *divmod(rest, max(1, self.folds))

    def name(self, number: int) -> str:
        """A training as a person calls it."""
        replica, member, fold = self.place(number)
        several = self.folds or self.members > 1
        names = [f"replica {replica}"] if self.replicas > 1 or not several else []
        names += [f"member {member}"] if self.members > 1 else []
        return " ".join([*names, *([f"fold {fold}"] if self.folds else [])])

    def describe(self) -> str:
        """Their numbers in words."""
        folds = f"{self.folds} folds" if self.folds else ""
        members = f"{self.members} members" if self.members > 1 else ""
        replicas = f"{self.replicas} replicas" if self.replicas > 1 else ""
        return " of ".join(filter(None, (folds, members, replicas)))


@dataclass(frozen=True)
class Recipe:
    """`params.yaml` and `model.json`, with `overrides` on top, which come from `origin`.

    With `members` it is an ensemble: each is a recipe, with what it sets on top and without tune's
    best trial, and `weights` say how much it counts.
    """

    train: TrainParams
    model: ModelSpec
    schema: Schema
    overrides: Overrides
    seed: int
    origin: str = "from tune"
    members: tuple["Recipe", ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def trainings(self) -> Trainings:
        """All that are asked for."""
        section = self.train
        return Trainings(section.replicas, section.folds or 0, max(1, len(self.members)))

    def training(self, number: int) -> "Training":
        """The ingredients of a training, by its number.

        All members of a replica divide the rows alike, so that a row is new to all that judge it.
        """
        replica, member, place = self.trainings.place(number)
        seed = seed_of(self.seed, replica)
        fold = None if self.train.folds is None else Fold(place, self.train.folds, seed)
        recipe = self.members[member] if self.members else self
        return Training(recipe, seed_of_fold(seed_of_member(seed, member), place), fold)


@dataclass(frozen=True)
class Training:
    """One training: a recipe, its seed, and the fold that it validates on, if there are folds."""

    recipe: Recipe
    seed: int
    fold: Fold | None


def read_recipe(params: Params, best: Path | None = BEST) -> Recipe:
    """Read what to train and how. The file `best` has the best trial of tune; None: there is none.

    Raises UserError for wrong values.
    """
    tree = params.part("train")
    schema, built = read_schema(PREPARED), read_spec(BUILT)
    asked = validate(TrainParams, tree, at="train").ensemble
    origin = "set" if isinstance(asked, list) else "from tune"

    def read(overrides: Overrides) -> Recipe:
        section = override_train({**tree, "ensemble": None}, overrides)
        model = override_model(built, overrides, schema)
        return Recipe(section, model, schema, overrides, params.seed, origin)

    if asked is None:
        return read({} if best is None else read_yaml(best) or {})
    members = read_proposal() if isinstance(asked, str) else asked
    if problems := check_members(members, read, KEY):
        # What the search proposes stands in no line of params.yaml.
        listed = isinstance(asked, list)
        raise UserError(*(p if listed else replace(p, key=KEY, value="tune") for p in problems))
    recipes = tuple(read(member.set) for member in members)
    if len(recipes) == 1:
        return recipes[0]
    return replace(read({}), members=recipes, weights=tuple(member.weight for member in members))


def read_proposal() -> list[EnsembleMember]:
    """The members that the search proposes. Raises UserError when it proposes none."""
    found = read_json(PROPOSAL).get("members", []) if PROPOSAL.exists() else []
    if not found:
        message = (
            "tune proposes no ensemble: it does where tune.trials and tune.keep_scores are above "
            "1 and tune.space names keys to search, for losses whose mean can be judged, of 20 "
            "validation rows or more, where two trials or more are within tune.model_size.most"
        )
        raise UserError(Problem(message, KEY, "tune", ("null", "a list of members")))
    return [EnsembleMember(weight=each["weight"], set=each["set"]) for each in found]


def describe_members(recipe: Recipe) -> Iterator[str]:
    """Yield a line on each member of an ensemble: its weight and what it sets."""
    total = sum(recipe.weights)
    for number, (member, weight) in enumerate(zip(recipe.members, recipe.weights, strict=True)):
        changed = ", ".join(f"{path} {value}" for path, value in member.overrides.items())
        yield f"member {number}, weight {weight / total:.3g}: {changed or 'as in params.yaml'}"
