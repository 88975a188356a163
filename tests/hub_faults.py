"""The ways in which ``hub_server`` can misbehave."""

from __future__ import annotations

import gzip
import http.client
from dataclasses import KW_ONLY, dataclass

from hub_store import Answer, Refusal, Request


@dataclass(frozen=True)
class Fault:
    """One way to misbehave; use the short constructors.

    ``wrong_bytes``, ``truncated`` and ``longer`` act on the body of an answer, and on what a PUT uploads.
    ``truncated``, ``longer`` and ``no_length`` also show in the length that HEAD gives, if ``on`` matches it.
    """

    kind: str
    _: KW_ONLY
    code: int = 0
    at: int = 0
    seconds: float = 0
    retry_after: int | str | None = None
    error_code: str = ""
    echo_token: bool = False
    done: bool = False
    zipped: bool = False

    @classmethod
    def wrong_bytes(cls, at: int = -1) -> Fault:
        """One byte is another one, by default the last; the size is right."""
        return cls("wrong_bytes", at=at)

    @classmethod
    def truncated(cls, at: int) -> Fault:
        """Only the first ``at`` bytes (all but the last ``-at`` if negative), and a length that says so."""
        return cls("truncated", at=at)

    @classmethod
    def longer(cls, by: int = 1) -> Fault:
        """``by`` bytes more at the end, and a length that says so."""
        return cls("longer", at=by)

    @classmethod
    def cut(cls, at: int) -> Fault:
        """The connection is dropped after ``at`` bytes of a body whose length was promised in full."""
        return cls("cut", at=at)

    @classmethod
    def stall(cls, at: int, seconds: float) -> Fault:
        """As ``cut``, but with a silence before; an answer without a body is silent before its headers."""
        return cls("stall", at=at, seconds=seconds)

    @classmethod
    def drip(cls, seconds: float) -> Fault:
        """One byte at a time, with a pause after each."""
        return cls("drip", seconds=seconds)

    @classmethod
    def padded(cls, by: int = 0, *, zipped: bool = False, code: int = 0) -> Fault:
        """``by`` spaces more, which JSON does not mind; gzip though nobody asked for it; another status."""
        return cls("padded", at=by, zipped=zipped, code=code)

    @classmethod
    def ignore_range(cls) -> Fault:
        """200 with the whole file where 206 with a part was asked for."""
        return cls("ignore_range")

    @classmethod
    def no_length(cls) -> Fault:
        """No Content-Length; the end of the connection is the end of the body."""
        return cls("no_length")

    @classmethod
    def status(
        cls,
        code: int,
        *,
        retry_after: int | str | None = None,
        error_code: str = "",
        echo_token: bool = False,
        done: bool = False,
    ) -> Fault:
        """An error answer, which may repeat the token it was sent; ``done``: the request took effect."""
        return cls(
            "status",
            code=code,
            retry_after=retry_after,
            error_code=error_code,
            echo_token=echo_token,
            done=done,
        )

    @classmethod
    def drop(cls, *, done: bool = False) -> Fault:
        """The connection ends without an answer; ``done``: after the request took effect."""
        return cls("drop", done=done)

    def spoil(self, data: bytes) -> bytes:
        """What becomes of a body."""
        if self.kind == "truncated":
            return data[: self.at]
        if self.kind == "longer":
            return data + b"x" * self.at
        if self.kind == "padded":
            padded = data + b" " * self.at
            return gzip.compress(padded, 1) if self.zipped else padded
        if self.kind == "wrong_bytes" and data:
            at = self.at % len(data)
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        return data

    def refuse(self, request: Request) -> Answer:
        """The answer of a ``status`` fault."""
        message = f"{http.client.responses.get(self.code, 'Error')} (as the test wants)"
        if self.echo_token:
            message += f"; Authorization: {request.headers.get('authorization', 'none')}"
        wait = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return Refusal(self.code, message, self.error_code).answer(request.target, wait)


FAULTS: list[tuple[str, Fault]] = [
    ("wrong bytes", Fault.wrong_bytes()),
    ("truncated", Fault.truncated(10)),
    ("longer", Fault.longer()),
    ("cut", Fault.cut(10)),
    ("stall", Fault.stall(10, 0.3)),
    ("ignored range", Fault.ignore_range()),
    ("no length", Fault.no_length()),
    *((f"status {code}", Fault.status(code)) for code in (401, 403, 404, 409, 412, 500, 502, 503)),
    ("status 429", Fault.status(429, retry_after=7)),
    ("echoed token", Fault.status(403, echo_token=True)),
    ("drop", Fault.drop()),
    ("drop after the work", Fault.drop(done=True)),
]
"""A name and an example of every fault that ends by itself, soon, and that a file can have."""
