"""What policy could say in earlier versions and can't any more, as far as `airgate policy migrate` rewrites it."""

import re
from typing import Any

from airgate.policy.addresses import address, private_address

REWRITTEN = "; airgate policy migrate rewrites this"

_SCOPE = re.compile(r"[!#-\[\]-~]{1,256}")  # as the schema has it
_CLAIMS = ("scope", "scp", ["scope"], ["scp"])


def scope(grant: Any) -> str | None:
    """The scope by which a grant would say it now; None for any other grant.

    A text of several scopes is another one: nothing says today what it said.
    """
    if not isinstance(grant, dict) or grant.keys() != {"issuer", "claim", "value"}:
        return None
    value = grant["value"]
    named = grant["claim"] in _CLAIMS and isinstance(value, str) and _SCOPE.fullmatch(value) is not None
    return value if named else None


def inside(upstream: Any) -> str:
    """Why an upstream has to say `private: true` now; empty when it needn't, or says whether it is."""
    if not isinstance(upstream, dict) or not upstream.keys().isdisjoint(("private", "via")):
        return ""
    base = upstream.get("base")
    if not isinstance(base, str) or base.endswith("/") or address(base):
        return ""
    return private_address(base)
