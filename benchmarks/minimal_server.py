"""The server that `benchmarks.serve` compares with: FastAPI and eager PyTorch, as one writes it.

    python -m benchmarks.minimal_server DATA PORT

A route, a pydantic model for rows, a batch of tensors, the model, a softmax. It takes and gives
the same JSON as ours, for columns of numbers or for one of images, without gaps. It has one
worker, one thread, no access log and uvicorn's other settings, as ours.
"""

import sys

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from stages.model.predictor import load_predictor


class Rows(BaseModel):
    """The body of a request."""

    rows: list[dict[str, float | list[list[float]]]]


class Prediction(BaseModel):
    """The answer for a row."""

    prediction: int | str
    probabilities: dict[str, float]


class Answer(BaseModel):
    """The body of an answer."""

    predictions: list[Prediction]


def make_app(data: str) -> FastAPI:
    """The application for the model trained in the folder `data`."""
    torch.set_num_threads(1)
    predictor = load_predictor(data)
    model, features = predictor.model.eval(), predictor.schema.features
    classes = predictor.schema.target.classes or []
    images = features[0].kind == "image"
    names = [feature.name for feature in features]
    statistics = predictor.statistics
    if images:
        mean = torch.tensor([m.mean for m in statistics.image])[:, None, None]
        deviation = torch.tensor([m.deviation for m in statistics.image])[:, None, None]
    else:
        mean = torch.tensor([statistics.numeric[name].mean for name in names])
        deviation = torch.tensor([statistics.numeric[name].deviation for name in names])
    app = FastAPI()

    @app.post("/predict")
    async def predict(body: Rows) -> Answer:
        if images:
            values = np.array([row[names[0]] for row in body.rows], dtype=np.float32)[:, None]
        else:
            values = np.array([[row[name] for name in names] for row in body.rows], np.float32)
        batch = {"image" if images else "numeric": (torch.from_numpy(values) - mean) / deviation}
        with torch.inference_mode():
            chances = torch.softmax(model(batch).double(), dim=1)
        found = chances.argmax(dim=1).tolist()
        return Answer(
            predictions=[
                Prediction(
                    prediction=classes[code],
                    probabilities={
                        str(name): chance for name, chance in zip(classes, row, strict=True)
                    },
                )
                for code, row in zip(found, chances.tolist(), strict=True)
            ]
        )

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[1]),
        port=int(sys.argv[2]),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
    )
