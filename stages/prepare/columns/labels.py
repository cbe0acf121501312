"""Classes that are several labels in one text, such as `sea;sky`."""

from collections import Counter
from collections.abc import Sequence

_SIGNS = (";", "|", ",", "+")
# What a list of Python or JSON has around it and its parts.
_AROUND = " []()'\""
# Of the labels of texts that are lists, so many stand in more than one class.
_SHARED = 0.5
_MAX_SHOWN = 3


def say_labels(name: str, classes: Sequence[object]) -> str | None:
    """A line on classes that seem to be lists of labels; None: they are none.

    They are where a sign divides two classes or more, and most of the parts stand in several. Where
    each class has as many parts as the others, or all are digits, it is a name: 'Springfield, IL'.
    """
    texts = [text for text in classes if isinstance(text, str)]
    for sign in _SIGNS:
        divided = [{each.strip(_AROUND) for each in text.split(sign)} - {""} for text in texts]
        lists = [text for text, each in zip(texts, divided, strict=True) if len(each) > 1]
        parts = Counter(part for each in divided for part in each)
        num_shared = sum(count > 1 for count in parts.values())
        if len(lists) < 2 or num_shared < max(2, _SHARED * len(parts)):
            continue
        if len(set(map(len, divided))) == 1 or all(map(str.isdecimal, parts)):
            continue
        shown = ", ".join(map(repr, lists[:_MAX_SHOWN]))
        return (
            f"the target '{name}' seems to hold several labels a row, as {shown}: each of its "
            f"{len(classes)} combinations is a class of its own; to predict the labels, write a "
            "column of yes and no for each in the file, and make a model for each (docs/init.md, "
            "'Several targets')"
        )
    return None
