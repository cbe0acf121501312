"""Trainings that end, and have learned nothing or the wrong thing. They are found by measuring."""

from pipeline.doctor.cause import Cause

TITLE = "It runs, and does not learn"
CAUSES = (
    Cause(
        "the model predicts the same for every row",
        (
            "validation_accuracy is the share of the most frequent class",
            "validation_rmse is the spread of the target",
        ),
        "The best answer without looking at the row is the most frequent class, or the mean. A "
        "model that is no better, by its loss neither, has learned nothing of the rows. `reprise "
        "doctor` draws up to 32 rows of all classes and trains on them alone: a model and a rate "
        "that work learn them by heart within some hundred steps. Where they do, look at the data; "
        "where they don't, at the rate and the layers.",
        (
            "the rate: `python -m stages.tools.lr_range` measures where the loss falls",
            "more epochs, where the loss was still falling at the end (`train.epochs`)",
            "rare classes: `train.class_weights: balanced`",
        ),
        probes=("learning", "layers"),
    ),
    Cause(
        "a metric that does not show what was learned",
        (
            "validation_accuracy is no better than the share of the most frequent class",
            "validation_loss is lower than that of any answer without a look at the row",
        ),
        "Nothing is wrong with the training. With one row in fifty of a class, always to answer "
        "the other one is right for 98 % of the rows; a model that tells well which rows are "
        "likelier than others may still answer that for nearly all, so that accuracy hardly moves. "
        "With weights for the classes it is right for fewer rows on purpose. The loss asks how "
        "likely the right class was, and there it shows. A model that is far too sure of itself "
        "has a large loss as well; that rows of a class come before the others, by their scores, "
        "then tells that it has learned.",
        (
            "`evaluate.metrics`: roc_auc, f1_macro or log_loss in place of accuracy",
            "for two classes: `train.calibration: {temperature: true, threshold: f1}`, which finds "
            "from which probability on the rare one is answered",
            "`train.early_stopping`: by the loss, not by accuracy",
        ),
    ),
    Cause(
        "labels that do not belong to their rows",
        (
            "the model learns 32 rows by heart, and nothing that holds for others",
            "another kind of model finds nothing either",
        ),
        "Any large model learns any rows by heart. If it then predicts no other row better than "
        "a guess, and a forest of decision trees doesn't either, the rows do not tell the label. "
        "Most often two files were joined in a different order, or one column was sorted by "
        "itself; sometimes the columns that matter are missing.",
        (
            "look at ten rows by eye, with the label beside them",
            "join by a key, never by the order of rows",
            "in a dataset of your own: return the label of the row that was asked for",
        ),
    ),
    Cause(
        "a rate that is too low",
        ("the loss falls a little in every epoch, and has hardly moved at the end",),
        "The step is the gradient times `train.optimizer.lr`. Where it is a hundred times too "
        "small, a training needs a hundred times the epochs. `reprise doctor` trains on the same "
        "few rows with the rate that is set, and with ten, a hundred and a thousand times as much.",
        (
            "`train.optimizer.lr` at what `python -m stages.tools.lr_range` suggests",
            "weights that are frozen don't move at all: `train.groups`",
        ),
    ),
    Cause(
        "a dead ReLU network",
        ("most units of a layer give 0 for every row",),
        "A ReLU passes what is above 0 and gives 0 for the rest, where its gradient is 0 as well. "
        "A unit that is below 0 for every row gets no gradient any more: it is dead for good. One "
        "step that was far too long can do that to a whole layer. `reprise doctor` counts them, "
        "layer by layer.",
        (
            "a lower `train.optimizer.lr`, and `train.clip_norm: 1.0`",
            "a schedule that begins low: `train.schedule: {name: warmup_cosine}`",
            "a layer norm before it, or `nn.GELU` or `nn.LeakyReLU(0.1)` in its place",
        ),
    ),
    Cause(
        "gradients that vanish",
        ("the gradient of the first layers is a millionth of that of the last",),
        "The gradient reaches the first layers through all that stand behind them, and is "
        "multiplied by each. With many layers, with sigmoids or with small weights it comes "
        "to nothing, and the first layers stay as they were drawn.",
        (
            "fewer layers, or a model with skip connections such as `resnet` (`build.model`)",
            "a layer norm between them; ReLU or GELU in place of sigmoid and tanh",
            "first weights from `nn.init.kaiming_normal_`",
        ),
    ),
    Cause(
        "gradients that explode",
        ("gradient_norm in history.csv is in the thousands, or grows from epoch to epoch",),
        "The same product, of numbers above 1: a layer's gradient is many times that of the one "
        "behind it. Every step is then as long as `train.clip_norm` allows, whatever the data "
        "say, and without it the loss soon is no number.",
        (
            "`train.clip_norm: 1.0`",
            "a layer norm between the layers, and smaller first weights",
            "values that are not standardised, in a dataset of your own: `prepare` does it",
        ),
    ),
    Cause(
        "validation rows unlike the train rows",
        (
            "train_loss falls, validation_loss rises from the first epochs on",
            "a classifier tells from which split a row is",
        ),
        "What holds for the train rows need not hold for rows of another kind: of other months, "
        "another hospital, sorted by class. `reprise doctor` lets a forest guess from which of the "
        "two a row is. If it can, the splits differ, and it names the columns that tell. If it "
        "can't, they are alike, and the model has learned its rows by heart (below).",
        (
            "leave the split to prepare, which draws by the key of a row "
            "(`prepare.split`), in place of a column of your own",
            "rows of a group, or of a time, that must stay together: `prepare.structure`",
            "exclude the column that tells: `prepare.columns: {name: exclude}`",
        ),
    ),
    Cause(
        "the rows are learned by heart",
        ("train_loss goes to 0, validation_loss is lowest early and then rises",),
        "The model is large for so few rows: it has learned them one by one, and not what they "
        "share. The best epoch is kept (`train.early_stopping`), so nothing is lost by it; but a "
        "better model may be had.",
        (
            "rows that are varied anew in each epoch: `train.augment`",
            "more `weight_decay` in `train.optimizer`, dropout or a smaller width in `build.model`",
            "more rows, or `pretrained` weights (`build.pretrained`)",
        ),
    ),
)
