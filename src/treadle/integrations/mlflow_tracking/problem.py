"""Errors as MLflow's clients know them: a code, one line, and the status that goes with the code."""

from __future__ import annotations

INVALID = "INVALID_PARAMETER_VALUE"
ABSENT = "RESOURCE_DOES_NOT_EXIST"
TAKEN = "RESOURCE_ALREADY_EXISTS"
UNKNOWN_CALL = "ENDPOINT_NOT_FOUND"
INTERNAL = "INTERNAL_ERROR"

STATUS = {
    INVALID: 400,
    "BAD_REQUEST": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    ABSENT: 404,
    UNKNOWN_CALL: 404,
    TAKEN: 400,
    INTERNAL: 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}


class Problem(Exception):
    """What a call is refused with."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    def body(self) -> dict[str, str]:
        """As JSON."""
        return {"error_code": self.code, "message": self.message}


def invalid(message: str) -> Problem:
    """The client's mistake."""
    return Problem(INVALID, message)


def absent(message: str) -> Problem:
    """There is no such thing."""
    return Problem(ABSENT, message)
