"""The model `ngrams`: what it learns from train rows before the first step."""

import pytest
import torch
from torch import Tensor

from stages.training.data.fit_model import fit_model
from stages.training.data.source import TensorSource
from stages.zoo.models.ngrams import OWN, Arguments, Model

# Two columns that have 'rocket' and 'rockets', at other codes.
WORDS = [["rocket", "goal", "rockets"], ["goals", "rockets", "rocket", "goal"]]
INPUTS = {"text": [2, 5, 3, 6]}
CODES = torch.tensor(
    [[2, 0, 4, 0, 0], [2, 0, 4, 4, 0], [2, 0, 0, 0, 0], [3, 0, 5, 0, 0], [3, 3, 5, 0, 0]]
)
CLASSES = torch.tensor([0, 0, 0, 1, 1])


def fitted(target: Tensor, codes: Tensor = CODES, num_outputs: int = 2) -> Model:
    """A model as it stands before the first step."""
    model = Model(Arguments(), INPUTS, num_outputs)
    fit_model(model, TensorSource({"text": codes}, target), WORDS, seed=0)
    return model.eval()


def test_it_begins_with_what_the_train_rows_say() -> None:
    model = fitted(CLASSES)
    assert model({"text": CODES}).argmax(dim=1).tolist() == CLASSES.tolist()


def test_columns_have_their_words_in_common_and_those_of_like_letters() -> None:
    model = fitted(CLASSES)
    # 'rocket' of the first column, and 'rockets' of either, which no row has.
    only = torch.tensor([[0, 0, 4, 0, 0], [4, 0, 0, 0, 0], [0, 0, 3, 0, 0]])
    assert model({"text": only}).argmax(dim=1).tolist() == [0, 0, 0]
    other = torch.tensor([[0, 0, 5, 0, 0], [0, 0, 2, 0, 0]])
    assert model({"text": other}).argmax(dim=1).tolist() == [1, 1]


def test_words_that_train_lacks_and_those_of_a_single_row_say_nothing() -> None:
    model = fitted(CLASSES)
    scores = model({"text": torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])})
    assert torch.equal(scores[0], scores[1])
    assert not model.word_weights[model.unknown].any()


def test_a_text_of_unknown_words_begins_at_the_shares_of_the_classes() -> None:
    # Texts of the rarest class alone have such words, side by side.
    codes = CODES.repeat(8, 1)
    codes[:2, 2:] = 1
    classes = CLASSES.repeat(8)
    classes[:2] = 2
    model = fitted(classes, codes, num_outputs=3)
    shares = model({"text": torch.tensor([[1, 1, 1, 1, 1]])}).softmax(dim=1)[0]
    assert shares.tolist() == pytest.approx((classes.bincount() / len(classes)).tolist(), abs=0.02)


def test_a_text_that_repeats_a_word_is_no_longer_than_others() -> None:
    model = Model(Arguments(), {"text": [400, 6]}, 2)
    train = torch.zeros(41, 400, dtype=torch.int64)
    # Texts of two words each, and one that says those of the other class over and over.
    train[:20, :2] = torch.tensor([2, 3])
    train[20:40, :2] = torch.tensor([4, 5])
    train[40] = torch.tensor([2, 3] * 200)
    classes = torch.tensor([0] * 20 + [1] * 21)
    rows = TensorSource({"text": train}, classes)
    fit_model(model, rows, [["parcel", "lost", "cannot", "login"]], seed=0)
    batch = {"text": train[[0, 40]]}
    found = model.eval()._find(batch["text"])
    for values, numbers in ((found.values, found.words), (found.own_values / OWN, found.own)):
        sums = torch.zeros(2, 400).scatter_add(1, numbers, values)
        whole = sums.square().sum(dim=1)
        if values is found.values:
            pairs = torch.zeros(2, model.num_pairs).scatter_add(1, found.pairs, found.pair_values)
            whole = whole + pairs.square().sum(dim=1)
        torch.testing.assert_close(whole, torch.ones(2))
    assert model(batch).argmax(dim=1).tolist() == [0, 0]


def test_an_amount_begins_at_zero() -> None:
    model = fitted(CLASSES.float(), num_outputs=1)
    assert not model({"text": CODES}).any()
    assert model.word_weights[model.shared[2]] == pytest.approx(1 + torch.log(torch.tensor(6 / 4)))
