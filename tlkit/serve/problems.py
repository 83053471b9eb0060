"""Problems: errors as HTTP has them, problem details (RFC 9457) with what a `TlkitError` says.

In: a status and an error. Out: a response, and what the description of the API says of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tlkit.errors import AnswerError, OptionError, TlkitError

MEDIA_TYPE = "application/problem+json"

COME_AGAIN_S = 1
"""Seconds after which one who was turned away may try again."""


class Problem(BaseModel):
    """What went wrong, what was found and expected, and what to do."""

    title: str
    status: int
    detail: str
    found: str
    expected: str
    do: str


def refused(
    status: HTTPStatus, about: str, *, found: str, expected: str, do: str, **headers: str
) -> HTTPException:
    """A request that is not answered, to be raised."""
    error: Any = TlkitError(about, found=found, expected=expected, do=do)
    return HTTPException(status, detail=error, headers=headers)


def response(error: HTTPException) -> JSONResponse:
    """What one who was refused gets."""
    status = HTTPStatus(error.status_code)
    said: Any = error.detail
    if not isinstance(said, TlkitError):  # the framework's own, such as 404
        said = TlkitError(
            str(said),
            found="this request",
            expected="what /openapi.json describes",
            do="correct it",
        )
    return _json(status, said, error.headers or {})


def of_error(error: TlkitError) -> JSONResponse:
    """What was asked and cannot be done, or what cannot be done now."""
    status = HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, OptionError):
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    elif isinstance(error, AnswerError):  # no later try gives another answer
        status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _json(status, error, {})


def of_fault(error: Exception) -> JSONResponse:
    """What should not happen. What it was stands in the server's log, and is nobody else's."""
    said = TlkitError(
        "the server has failed",
        found="an error that it does not know",
        expected="an answer",
        do="look at what the server has printed",
    )
    return _json(HTTPStatus.INTERNAL_SERVER_ERROR, said, {})


def _json(status: HTTPStatus, said: TlkitError, headers: Mapping[str, str]) -> JSONResponse:
    problem = Problem(
        title=status.phrase,
        status=status,
        detail=said.about,
        found=said.found,
        expected=said.expected,
        do=said.do,
    )
    return JSONResponse(
        problem.model_dump(), status, headers={**headers, "content-type": MEDIA_TYPE}
    )


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the API's description says of these."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {one: {"description": HTTPStatus(one).phrase, "content": content} for one in statuses}
