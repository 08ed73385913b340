"""The gate's own code, as it runs at the edge, for the commands that judge policy: never a copy of it."""

import sys
from pathlib import Path

# Last, so that nothing in src/ can stand in front of a library.
sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))

from audit import Record
from authzen import CONFIGURATION, EVALUATION, EVALUATIONS, ROUTE, Asking, Invalid, questions
from bundle import OWN, Bundle, Issuer, load_bundle, load_pointer, pinned
from claims import LONGEST as LONGEST_VALUE
from claims import SCOPES
from claims import at as claim_at
from claims import said as claim_said
from claims import texts as claim_texts
from clock import DAYS, Dates, Window, Zone
from conditions import (
    EQUATED,
    FLAGS,
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
from dpop import confirmed
from duty import honour
from forward import MAX_SEGMENTS, fits, parse_target, refuse_unsendable
from headers import Rule as HeaderRule
from headers import passes as _passes
from headers import sendable, settable
from identity import KIND, KINDS, LONGEST_SUBJECT, SCOPE, Grant, Mapping, act, identify
from keys import ALGORITHMS, Key, Keyring, read_key, refuse_foreign
from keys import LIMIT as KEYS_LIMIT
from keys import TIMEOUT as KEYS_TIMEOUT
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
from obligations import BY, NOTHING, Limit, Obligations, merge
from policy import METHODS, Candidate, Policy
from shard import EMPTY, MOST_POLICIES, Shard, load_shard
from shard import LIMIT as SHARD_LIMIT
from state import BUNDLE, POINTER, SHARD
from tokens import Rules, Unverified
from tokens import parse as parse_token
from tokens import validate as validate_token
from upstream import Upstream


def passes(name: str) -> bool:
    """Whether a caller's header of that name, in lower case, can go to any upstream."""
    return _passes(name, HeaderRule())


__all__ = [
    "ALGORITHMS",
    "ANSWERS",
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
    "FLAGS",
    "HELD",
    "KEYS_LIMIT",
    "KEYS_TIMEOUT",
    "KIND",
    "KINDS",
    "LONGEST_SUBJECT",
    "LONGEST_VALUE",
    "MAX_SEGMENTS",
    "METHODS",
    "MOST_POLICIES",
    "NOTHING",
    "OWN",
    "POINTER",
    "QUANTIFIERS",
    "RESOURCE",
    "ROUTE",
    "SCOPE",
    "SCOPES",
    "SHARD",
    "SHARD_LIMIT",
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
    "Limit",
    "Mapping",
    "Named",
    "Network",
    "Obligations",
    "Policy",
    "Property",
    "Query",
    "Reason",
    "Record",
    "Roles",
    "Rules",
    "Shard",
    "Tags",
    "Target",
    "Truth",
    "Unverified",
    "Upstream",
    "Window",
    "Zone",
    "act",
    "claim_at",
    "claim_said",
    "claim_texts",
    "confirmed",
    "equated",
    "fits",
    "honour",
    "identify",
    "load_bundle",
    "load_pointer",
    "load_shard",
    "merge",
    "parse_target",
    "parse_token",
    "passes",
    "pinned",
    "questions",
    "read_base64url",
    "read_key",
    "read_object",
    "refuse_foreign",
    "refuse_unsendable",
    "sendable",
    "settable",
    "validate_token",
]
