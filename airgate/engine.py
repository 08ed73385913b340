"""The gate's own code, as it runs at the edge, for the commands that judge policy: never a copy of it."""

import sys
from pathlib import Path

# Last, so that nothing in src/ can stand in front of a library.
sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))

from access import LIMIT as ACT_LIMIT
from access import LONGEST_GRANT, Act, act_id, load_act
from audit import Record
from authzen import CONFIGURATION, EVALUATION, EVALUATIONS, ROUTE, Asking, Invalid, questions
from bundle import OWN, Bundle, Issuer, Pointer, load_bundle, pinned
from claims import LONGEST as LONGEST_VALUE
from claims import SCOPES
from claims import at as claim_at
from claims import said as claim_said
from claims import texts as claim_texts
from clock import DAYS, MONTH_DAYS, Dates, Window, Zone
from conditions import (
    EQUATED,
    NAMED,
    QUANTIFIERS,
    RESOURCE,
    Among,
    Call,
    Claim,
    Condition,
    Equal,
    Flag,
    Glob,
    Ids,
    Named,
    Network,
    Property,
    Query,
    Roles,
    Tags,
    Truth,
    equated,
)
from delivery import HELD
from document import read_base64url, read_object
from dpop import confirmed, thumbprint
from duty import honour
from forward import MAX_SEGMENTS, fits, parse_target, refuse_unsendable
from headers import Rule as HeaderRule
from headers import passes as _passes
from headers import sendable, settable
from identity import KIND, KINDS, LISTS, LONGEST_SUBJECT, SCOPE, Grant, Mapping, act, identify
from journal import KEY as AUDIT_KEY
from keys import ALGORITHMS, Key, Keyring, read_key, refuse_foreign
from keys import LIMIT as KEYS_LIMIT
from keys import TIMEOUT as KEYS_TIMEOUT
from ledger import ACTS, HEAD, load_pointer, read_head
from ledger import FORMAT as POINTER_FORMAT
from ledger import LIMIT as POINTER_LIMIT
from ledger import read_acts as read_copy
from model import (
    ANSWERS,
    EMPTY_SEGMENT,
    ENCODED_SLASH,
    Caller,
    Decision,
    Denied,
    Fact,
    Identity,
    Inbound,
    Reason,
    Target,
)
from obligations import BY, NOTHING, Obligations
from policy import METHODS, Candidate, Policy
from shard import EMPTY, MOST_POLICIES, Shard, load_shard
from shard import LIMIT as SHARD_LIMIT
from signing import read_private
from state import BUNDLE, SHARD
from tokens import Rules, Unverified
from tokens import parse as parse_token
from tokens import validate as validate_token
from trust import ACT as ACT_TYPE
from trust import GRANT as MAY_GRANT
from trust import MAY, Signed, Trusted, Untrusted, pae, read_trusted, signer
from trust import POINTER as POINTER_TYPE
from trust import PUBLISH as MAY_PUBLISH
from trust import VARIABLE as TRUSTED_KEYS
from upstream import Upstream
from view import UNNAMED as UNNAMED_GATE


def passes(name: str) -> bool:
    """Whether a caller's header of that name, in lower case, can go to any upstream."""
    return _passes(name, HeaderRule())


__all__ = [
    "ACTS",
    "ACT_LIMIT",
    "ACT_TYPE",
    "ALGORITHMS",
    "ANSWERS",
    "AUDIT_KEY",
    "BUNDLE",
    "BY",
    "CONFIGURATION",
    "DAYS",
    "EMPTY",
    "EMPTY_SEGMENT",
    "ENCODED_SLASH",
    "EQUATED",
    "EVALUATION",
    "EVALUATIONS",
    "HEAD",
    "HELD",
    "KEYS_LIMIT",
    "KEYS_TIMEOUT",
    "KIND",
    "KINDS",
    "LISTS",
    "LONGEST_GRANT",
    "LONGEST_SUBJECT",
    "LONGEST_VALUE",
    "MAX_SEGMENTS",
    "MAY",
    "MAY_GRANT",
    "MAY_PUBLISH",
    "METHODS",
    "MONTH_DAYS",
    "MOST_POLICIES",
    "NAMED",
    "NOTHING",
    "OWN",
    "POINTER_FORMAT",
    "POINTER_LIMIT",
    "POINTER_TYPE",
    "QUANTIFIERS",
    "RESOURCE",
    "ROUTE",
    "SCOPE",
    "SCOPES",
    "SHARD",
    "SHARD_LIMIT",
    "TRUSTED_KEYS",
    "UNNAMED_GATE",
    "Act",
    "Among",
    "Asking",
    "Bundle",
    "Call",
    "Caller",
    "Candidate",
    "Claim",
    "Condition",
    "Dates",
    "Decision",
    "Denied",
    "Equal",
    "Fact",
    "Flag",
    "Glob",
    "Grant",
    "Identity",
    "Ids",
    "Inbound",
    "Invalid",
    "Issuer",
    "Key",
    "Keyring",
    "Mapping",
    "Named",
    "Network",
    "Obligations",
    "Pointer",
    "Policy",
    "Property",
    "Query",
    "Reason",
    "Record",
    "Roles",
    "Rules",
    "Shard",
    "Signed",
    "Tags",
    "Target",
    "Trusted",
    "Truth",
    "Untrusted",
    "Unverified",
    "Upstream",
    "Window",
    "Zone",
    "act",
    "act_id",
    "claim_at",
    "claim_said",
    "claim_texts",
    "confirmed",
    "equated",
    "fits",
    "honour",
    "identify",
    "load_act",
    "load_bundle",
    "load_pointer",
    "load_shard",
    "pae",
    "parse_target",
    "parse_token",
    "passes",
    "pinned",
    "questions",
    "read_base64url",
    "read_copy",
    "read_head",
    "read_key",
    "read_object",
    "read_private",
    "read_trusted",
    "refuse_foreign",
    "refuse_unsendable",
    "sendable",
    "settable",
    "signer",
    "thumbprint",
    "validate_token",
]
