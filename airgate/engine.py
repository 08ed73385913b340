"""The gate's own code, as it runs at the edge, for the commands that judge policy: never a copy of it."""

import sys
from pathlib import Path

# Last, so that nothing in src/ can stand in front of a library.
sys.path.append(str(Path(__file__).resolve().parent.parent / "src"))

from audit import Record
from authzen import CONFIGURATION, EVALUATION, EVALUATIONS, ROUTE, Asking, Invalid, questions
from bundle import OWN, Bundle, Issuer, load_bundle, load_pointer, pinned
from conditions import (
    DAYS,
    EQUATED,
    QUANTIFIERS,
    RESOURCE,
    Among,
    Call,
    Claim,
    Condition,
    Dates,
    Equal,
    Glob,
    Ids,
    Named,
    Network,
    Property,
    Query,
    Roles,
    Tags,
    Truth,
    Window,
    Zone,
    equated,
)
from duty import honour
from forward import MAX_SEGMENTS, parse_target, refuse_unsendable
from identity import KINDS, LONGEST, Grant, Mapping, act, identify
from model import ANSWERS, Caller, Decision, Denied, Fact, Identity, Inbound, Reason, Target
from obligations import BY, NOTHING, Limit, Obligations, merge
from policy import METHODS, Candidate, Policy
from shard import EMPTY, MOST_POLICIES, Shard, load_shard
from shard import LIMIT as SHARD_LIMIT
from state import BUNDLE, POINTER, SHARD
from tokens import parse as parse_token
from tokens import validate as validate_token

__all__ = [
    "ANSWERS",
    "BUNDLE",
    "BY",
    "CONFIGURATION",
    "DAYS",
    "EMPTY",
    "EQUATED",
    "EVALUATION",
    "EVALUATIONS",
    "KINDS",
    "LONGEST",
    "MAX_SEGMENTS",
    "METHODS",
    "MOST_POLICIES",
    "NOTHING",
    "OWN",
    "POINTER",
    "QUANTIFIERS",
    "RESOURCE",
    "ROUTE",
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
    "Glob",
    "Grant",
    "Identity",
    "Ids",
    "Inbound",
    "Invalid",
    "Issuer",
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
    "Shard",
    "Tags",
    "Target",
    "Truth",
    "Window",
    "Zone",
    "act",
    "equated",
    "honour",
    "identify",
    "load_bundle",
    "load_pointer",
    "load_shard",
    "merge",
    "parse_target",
    "parse_token",
    "pinned",
    "questions",
    "refuse_unsendable",
    "validate_token",
]
