"""Refusals as problem documents (RFC 9457)."""

import json
from typing import Any

from model import ANSWERS, Reason, Refusal


def refusal(
    reason: Reason,
    request_id: str,
    headers: dict[str, str],
    contact: str | None = None,
    hint: str = "",
    *,
    retry_after: int | None = None,
) -> Refusal:
    """A problem document (RFC 9457): stable, dull, with what a caller needs to ask about it and nothing else.

    `retry_after`: seconds; None: trying again changes nothing, or is the caller's decision.
    """
    told = ANSWERS[reason]
    document: dict[str, Any] = {
        "type": f"urn:airgate:reason:{reason}",
        "title": told.title,
        "status": told.status,
        "code": reason,
        "request_id": request_id,
        "retryable": retry_after is not None,
    }
    headers = {
        "content-type": "application/problem+json",
        "cache-control": "no-store",
        "airgate-error": "gate",
        **headers,
    }
    if retry_after is not None:
        document["retry_after"] = retry_after
        headers["retry-after"] = str(retry_after)
    if contact is not None:
        document["contact"] = contact
    if hint:
        document["detail"] = hint
    return Refusal(told.status, headers, json.dumps(document) + "\n")


def broken(request_id: str) -> Refusal:
    """The answer to a request that could not be read, or whose answer could not be built."""
    headers = {"airgate-request-id": request_id}
    return refusal(Reason.INTERNAL, request_id, headers, retry_after=ANSWERS[Reason.INTERNAL].retry_after)
