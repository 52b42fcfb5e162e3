"""Errors of a server as JSON: ``{"error": {"field": …, "value": …, "remedy": …}}`` under the HTTP status that fits."""

SHOWN = 80
"""Characters of a bad value that are sent back."""


class Problem(Exception):
    """A request that is not answered with scores."""

    def __init__(self, status: int, field: str, value: object, remedy: str, retry_after: int | None = None) -> None:
        super().__init__(f"{field}: {excerpt(value)}; {remedy}")
        self.status, self.field, self.value, self.remedy = status, field, excerpt(value), remedy
        self.retry_after = retry_after
        """Seconds after which another attempt makes sense."""

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def content(self) -> dict[str, dict[str, str]]:
        return {"error": {"field": self.field, "value": self.value, "remedy": self.remedy}}


def excerpt(value: object) -> str:
    """The beginning of a value on one line."""
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text[: 4 * SHOWN].split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
