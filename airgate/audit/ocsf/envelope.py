"""What every OCSF event has, whatever it is about."""

from typing import Any

from airgate.audit.fields import Event, clean, members, moment, text, texts, uid, whole

VERSION = "1.8.0"
UNKNOWN, OTHER = 0, 99
SUCCESS, FAILURE = 1, 2
INFORMATIONAL, LOW, MEDIUM, HIGH = 1, 2, 3, 4

Mapped = dict[str, Any]

# Category, class, and the names of its activities that are used here.
_CLASSES: dict[int, tuple[str, int, str, dict[int, str]]] = {
    2004: ("Detection Finding", 2, "Findings", {1: "Create"}),
    3004: (
        "Entity Management", 3, "Identity & Access Management",
        {1: "Create", 3: "Update", 4: "Delete", 10: "Activate", OTHER: "Other"},
    ),
    3005: (
        "User Access Management", 3, "Identity & Access Management",
        {1: "Assign Privileges", 2: "Revoke Privileges"},
    ),
    6002: ("Application Lifecycle", 6, "Application Activity", {3: "Start", OTHER: "Other"}),
    6003: (
        "API Activity", 6, "Application Activity",
        {UNKNOWN: "Unknown", 1: "Create", 2: "Read", 3: "Update", 4: "Delete", OTHER: "Other"},
    ),
}  # fmt: skip
_SEVERITIES = {INFORMATIONAL: "Informational", LOW: "Low", MEDIUM: "Medium", HIGH: "High"}
STATUSES = {UNKNOWN: "Unknown", SUCCESS: "Success", FAILURE: "Failure"}
HEAD = {"event", "schema", "time"}


def base(event: Event, class_uid: int, activity: int, message: str, **more: Any) -> Mapped:
    name, category, category_name, activities = _CLASSES[class_uid]
    activity_name = more.pop("activity_name", None) or activities[activity]
    severity, status = more.pop("severity", INFORMATIONAL), more.pop("status", SUCCESS)
    worker = members(event, "worker")
    location = text(worker, "location", 64)
    found: Mapped = {
        "metadata": _metadata(event, text(worker, "version", 128)),
        "time": round((moment(event) or 0.0) * 1000),
        "timezone_offset": 0,
        "category_uid": category,
        "category_name": category_name,
        "class_uid": class_uid,
        "class_name": name,
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity,
        "type_name": f"{name}: {activities[activity]}",
        "severity_id": severity,
        "severity": _SEVERITIES[severity],
        "status_id": status,
        "status": STATUSES[status],
        "message": message,
        **{member: value for member, value in more.items() if value is not None and value != []},
    }
    if location is not None:
        found["cloud"] = {"provider": "Cloudflare", "region": location}
        found["metadata"]["profiles"].append("cloud")
    return found


def _metadata(event: Event, version: str | None) -> Mapped:
    found: Mapped = {
        "version": VERSION,
        "product": {"name": "Airgate", "vendor_name": "Airgate"}
        | ({} if version is None else {"version": version}),
        "uid": uid(event),
        "log_name": "audit",
        "log_provider": "Airgate",
        "log_version": str(whole(event, "schema") or "?"),
        "event_code": text(event, "event", 64),
        "original_time": text(event, "time", 64),
        "profiles": ["security_control"],
    }
    if (position := whole(event, "position")) is not None:
        found["sequence"] = position
    if (request := text(event, "request_id", 64)) is not None:
        found["correlation_uid"] = request
    if texts(event, "cut"):
        found["is_truncated"] = True
    return found


def rest(event: Event, mapped_members: set[str]) -> Mapped | None:
    found = {name: clean(value) for name, value in event.items() if name not in mapped_members}
    return found or None
