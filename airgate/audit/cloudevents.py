"""Audit events as CloudEvents 1.0, in structured JSON: the event as it is, in an envelope that brokers know."""

from datetime import UTC, datetime

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from airgate.audit.fields import Event, clean, moment, text, uid, whole

SOURCE = "airgate"
TYPE = "airgate.audit."  # and the event's kind
SCHEMA = "urn:airgate:audit:event:"  # and the number of its schema: the $id of event.schema.json
_LIKE_NAMES = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")

_ODD = (b"\\ud", b"NaN", b"Infinity")  # in a line that may hold what not every reader of JSON takes

_format = JSONFormat()


def enveloped(event: Event, source: str = SOURCE) -> bytes | None:
    """One line of JSON; None for what isn't one of the gate's. `source`: a URI reference, which tells gates apart."""
    when, kind, schema = moment(event), text(event, "event", 64), whole(event, "schema")
    if when is None or not kind or schema is None or not _LIKE_NAMES.issuperset(kind):
        return None
    attributes = {
        "specversion": "1.0",
        "type": TYPE + kind,
        "source": source,
        "id": uid(event),
        "time": datetime.fromtimestamp(round(when * 1000) / 1000, UTC),
        "datacontenttype": "application/json",
        "dataschema": f"{SCHEMA}{schema}",
    }
    if about := _subject(event):
        attributes["subject"] = about
    line = _format.write(CloudEvent(attributes, dict(event)))
    if any(odd in line for odd in _ODD):
        line = _format.write(CloudEvent(attributes, clean(dict(event))))
    return line


def _subject(event: Event) -> str | None:
    """What the event is about: a request, a policy, an act, keys, or the chain itself."""
    for name in ("request_id", "id", "of", "bundle", "chain"):
        value = event.get(name)
        if isinstance(value, str) and value:
            return text(event, name)
    return None
