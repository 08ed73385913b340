"""What can go wrong, by what a task should do about it: fail at once, or try again later."""

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from requests.exceptions import ConnectionError as RequestsConnectionError


class ConnectionInvalid(AirflowFailException):
    """The connection lacks something, or holds what can't be read. The message names the field as the form does."""


class TokenRefused(AirflowFailException):
    """The identity provider says no, and will again. The message names its host, never its answer or a secret."""


class TokenUnavailable(AirflowException):
    """No token at the moment: the provider is away, fails or answers nonsense. Worth another try."""


class TokenEnded(AirflowException):
    """The token that came along with a deferral is of no use any more: its task has to fetch another one.

    `refused`: what the gate said to it, if that is why.
    """

    def __init__(self, refused: AirflowFailException | None = None) -> None:
        super().__init__("The token that this task was deferred with has ended before it could be used.")
        self.refused = refused


class GateDenied(AirflowFailException):
    """The gate refused, and trying again changes nothing. The message says whom to ask."""

    def __init__(self, message: str, request_id: str = "") -> None:
        super().__init__(message)
        self.request_id = request_id


class GateBusy(AirflowException):
    """The gate refused for now: a rate limit, an open circuit, an upstream that is away. Worth another try, later."""

    def __init__(self, message: str, retry_after: float, request_id: str = "") -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds from when it was raised
        self.request_id = request_id


class GateUnreachable(AirflowException):
    """No connection to the gate, or an answer that is none. Worth another try."""


class GateConnectionError(GateUnreachable, RequestsConnectionError):
    """The same where requests is at work: what a DAG retries on, a ConnectionError, still holds."""
