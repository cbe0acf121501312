"""Answers, and reasons for a refusal: one line, and of wrong rows each place."""

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import orjson
from starlette.types import Send

from stages.common.errors import shorten

MAX_DETAILS = 20
# A browser must not take JSON that holds somebody's names for a page.
NO_SNIFF = (b"x-content-type-options", b"nosniff")


@dataclass(frozen=True)
class Detail:
    """A wrong value: its row from 0, its column, what it must be, and what may be meant."""

    row: int
    column: str
    message: str
    suggestion: str | None = None

    def line(self) -> str:
        """The mistake on one line."""
        meant = "" if self.suggestion is None else f"; did you mean '{self.suggestion}'?"
        return f"row {self.row}, column '{self.column}': {self.message}{meant}"


class RequestError(Exception):
    """A request that can't be answered: an HTTP status with a message for who sent it."""

    def __init__(
        self,
        status: int,
        message: str,
        details: list[Detail] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.message = status, message
        self.details, self.headers = details or [], dict(headers or {})
        super().__init__(message)

    def answer(self) -> "Answer":
        """The answer as JSON: `error`, and of wrong rows `details`, the first of them."""
        content: dict[str, object] = {"error": self.message}
        if self.details:
            content["details"] = [asdict(detail) for detail in self.details[:MAX_DETAILS]]
        headers = {**self.headers, NO_SNIFF[0].decode(): NO_SNIFF[1].decode()}
        return Answer(orjson.dumps(content), self.status, headers=headers)


@dataclass(frozen=True)
class Answer:
    """An answer: a body, as a rule JSON; numbers that are not finite are null in it."""

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send) -> None:
        """Send it."""
        headers = [
            (b"content-type", self.media_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in self.headers.items()),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def show(value: object) -> str:
    """A value of a request's on a line: of a large or deeply nested one, its beginning."""
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return f"a file of {len(value):,} bytes"
    # repr() of a value that is nested a thousand deep ends in RecursionError.
    limited = reprlib.Repr()
    limited.maxlevel, limited.maxstring, limited.maxlong, limited.maxother = 3, 200, 200, 200
    limited.maxlist = limited.maxdict = 12
    return shorten(limited.repr(value))


def wrong_rows(details: list[Detail]) -> RequestError:
    """The refusal of rows that hold what the model can't be given."""
    rest = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    rest = " (and many more)" if len(details) >= MAX_DETAILS else rest
    return RequestError(422, f"{details[0].line()}{rest}", details)
