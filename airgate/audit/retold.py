"""A request's events in sentences, for somebody who asks why it went as it did.

What stands in a log is outside input: names go through `printable` before they are shown, by whoever shows them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from airgate.audit.advice import ADVICE
from airgate.audit.control import change, document
from airgate.audit.fields import fact, moment, text, texts, whole
from airgate.audit.lookup import Event, Story
from airgate.engine import ANSWERS, OWN, Reason
from airgate.moments import clock
from airgate.policy.phrases import joined
from airgate.policy.recorded import Recorded

Told = tuple[str, str]  # a heading of one word, and a sentence or several

RESULTS = {
    "unreachable": "could not be reached",
    "timeout": "did not answer in time",
    "circuit_open": "was not called, for it had failed again and again",
    "overloaded": "was not called, for too many calls were waiting for it",
    "credential": "was not called, for the gate had no credential for it",
    "body_too_large": "was not called, for the body was too large to be signed",
    "body_invalid": "was not called, for the body could not be read",
    "internal": "was not heard, for the gate failed",
}
PAGES = {
    "health": "the gate's health",
    "evaluation": "an AuthZEN question",
    "evaluations": "AuthZEN questions",
    "events": "an issuer's word that a session has ended",
    "authz": "a proxy's question whether it may let a call through",
    "preflight": "a browser's question before a call (CORS)",
}


def headline(story: Story) -> str:
    """`DENIED POST on ledger, Sunday 2026-11-22 02:13:40 UTC: No policy permits this call (policy.no_match)`"""
    event = story.event
    what = (
        f"{event.get('method') or 'A request'} on {_place(event)}" if event.get("upstream") else "A request"
    )
    line = f"{'PERMITTED' if story.decision.permit else 'DENIED'} {what}, {when(event)}"
    return line if story.decision.permit else f"{line}: {reason(event)}"


def when(event: Event) -> str:
    """`Tuesday 2026-11-17 09:30:02 UTC`"""
    seconds = moment(event)
    if seconds is None:
        return str(event.get("time"))
    return f"{datetime.fromtimestamp(int(seconds), UTC):%A %Y-%m-%d %H:%M:%S} UTC"


def reason(event: Event) -> str:
    """Why a call was denied, in words and as a code."""
    code = text(event, "reason") or "no reason given"
    known = ANSWERS.get(Reason(code)) if code in set(Reason) else None
    return f"{known.title} ({code})" if known is not None else code


def retold(story: Story, owner: str | None = None) -> Iterator[Told]:
    """The whole story, but for what policy looked at. `owner`: whom to ask, of the policies or of the upstream."""
    event, record = story.event, story.decision
    if "subject" in event:
        yield "Who", _who(record)
        yield "Task", _task(event)
    else:
        yield (
            "Who",
            "Nobody could be told: the request was refused or answered before its token was believed.",
        )
    yield "What", _what(record)
    yield "Decision", _decision(story)
    for sentence in acts(story):
        yield "Access", sentence
    if record.questions:
        yield "Questions", " ".join(f"{each}." for each in record.answers)
    yield "Upstream", " ".join(_outcomes(story))
    yield "Policy", _policy(story)
    if not record.permit:
        yield "To do", f"{advice(event)}.{f' Ask {owner}.' if owner else ''}"
    if "worker" in event or "trace_id" in event:
        yield "Trace", _trace(event)


def advice(event: Event) -> str:
    """What to do about a refusal."""
    code = text(event, "reason") or ""
    return ADVICE[Reason(code)] if code in set(Reason) else "Ask the platform team, with the request id"


def _who(record: Recorded) -> str:
    event = record.event
    roles = event["roles"]
    article = "an" if event["kind"] == "agent" else "a"
    said = [f"{event['subject']}, {article} {event['kind']} with a token of issuer {event['issuer']}."]
    if record.unnamed:
        said.append(f"Who that is can't be told: {record.unnamed}.")
    if "actor" in event:
        said.append(f"{event['actor']} acted for it.")
    if "jkt" in event:
        said.append("Its token was bound to a key, which the caller has shown to hold (DPoP).")
    granted = roles["granted"]
    said.append(
        f"It had the role{'s' * (len(granted) > 1)} {joined(granted)}." if granted else "It had no role."
    )
    if roles.get("lent"):
        said.append(f"Of these, {joined(roles['lent'])} came from a temporary grant.")
    if roles.get("unknown"):
        said.append(
            f"Whether it had {joined(roles['unknown'])} was not known: its token lacks the claim that could say so."
        )
    if roles.get("tagged") is not None:
        said.append(f"It acted under {joined(roles['tagged']) or 'none'} only, for Airgate-Role said so.")
    if record.cut:
        said.append(
            f"The line was too long for the log, which holds only a part of {joined(sorted(record.cut))}."
        )
    return " ".join(said)


_NOUNS = {
    "dag": "DAG",
    "task": "task",
    "run": "run",
    "try": "try",
    "map_index": "map index",
    "run_type": "run type",
    "triggered_by": "triggered by",
    "environment": "environment",
}


def _task(event: Event) -> str:
    told: dict[bool, list[str]] = {True: [], False: []}
    for name, noun in _NOUNS.items():
        found = fact(event, name)
        if found is not None and not (name == "map_index" and found[0] == "-1"):
            told[found[1]].append(f"{noun} {found[0]}")
    said = []
    if told[True]:
        said.append(f"{', '.join(told[True])}: attested by the token.")
    if told[False]:
        said.append(f"{', '.join(told[False])}: only claimed, by headers that the caller wrote itself.")
    return " ".join(said) or "Neither the token nor a header named a DAG or task."


def _what(record: Recorded) -> str:
    event = record.event
    if event.get("method") is None:
        return "It could not even be read."
    page = text(event, "page")
    if page is not None and event.get("upstream") == OWN:
        said = [f"{event['method']}: {PAGES.get(page, f'the page {page} of the gate')}."]
    else:
        path = event.get("path")
        where = f"path {path}" if path is not None else "a path that is not logged"
        said = [f"{event['method']} on upstream {_place(event)}, {where}."]
        if page is not None:
            said.append(f"It was {PAGES.get(page, page)}.")
    if (query := event.get("query")) is not None:
        said.append(f"Its query had {_query(query)}.")
    if (size := whole(event, "request_bytes")) is not None:
        said.append(f"It brought {size:,} bytes.")
    if event.get("client"):
        country = f" in {event['country']}" if event.get("country") else ""
        said.append(f"It came from {event['client']}{country}.")
    if isinstance(ended := event.get("ended"), dict):
        told = [text(ended, name) or "?" for name in ("issuer", "session", "result")]
        said.append("Of the issuer {}, the session {} is over: {}.".format(*told))
    if event.get("justification"):
        said.append(f"Its caller gave as a reason: {event['justification']}")
    return " ".join(said)


def _query(query: dict[str, Any]) -> str:
    shown = [
        name
        if values is None
        else f"{name}={','.join(map(str, values))}"
        if isinstance(values, list)
        else name
        for name, values in query.items()
    ]
    values = " (names only: values are not logged)" if any(each is None for each in query.values()) else ""
    return f"{joined(shown, 16)}{values}"


def _decision(story: Story) -> str:
    event, record = story.event, story.decision
    said = []
    if not record.decided:
        if record.permit:
            said.append("It was answered without asking policy.")
        else:
            said.append(f"{reason(event)}. Policy was not asked: the request was refused before.")
    elif event["forbids"]:
        said.append(f"{reason(event)}: {joined(event['forbids'])}. A forbid wins over every permit.")
        if event["permits"]:
            said.append(f"Without it, {joined(event['permits'])} would have permitted the call.")
    elif record.permit:
        said.append(f"Permitted by {joined(event['permits'])}.")
    elif event["permits"]:
        said.append(f"Policy permitted it, by {joined(event['permits'])}, and then: {reason(event)}.")
    else:
        said.append(f"{reason(event)}.")
    if event.get("route") and record.decided:
        said.append(f"The path matched {event['route']}.")
    if text(event, "detail"):
        said.append(f"In detail: {event['detail']}.")
    if event.get("shadow"):
        would = "permitted" if event.get("would") == "permit" else "denied"
        said.append(
            f"Policies on trial, not applied: {joined(event['shadow'])}; with them it would be {would}."
        )
    if isinstance(asked := event.get("obligations"), list) and asked:
        kinds = [str(one.get("type")) if isinstance(one, dict) else str(one) for one in asked]
        said.append(f"The permits ask for: {joined(kinds)}.")
    if event.get("credential") and record.permit:
        said.append(f"The gate used the credential {event['credential']}.")
    if (took := whole(event, "gate_ms")) is not None:
        said.append(f"That took the gate {took} ms.")
    return " ".join(said)


def acts(story: Story) -> Iterator[str]:
    """Revocations and grants that had a part in the decision."""
    event = story.event
    if event.get("reason") in ("token.revoked", "policy.revoked"):
        name = (text(event, "detail") or "").partition(":")[0]
        yield _act(story, name, "A revocation hit the call", "airgate revoke list")
    for name in texts(event, "grants"):
        yield _act(
            story, name, "Without a temporary grant it would have gone otherwise", "airgate grant list"
        )


def _act(story: Story, name: str, what: str, where: str) -> str:
    found = story.acts.get(name)
    told = change(found) if found is not None else None
    if found is None or told is None:
        return f"{what}: {name[:12]}. More about it: {where}."
    at = whole(document(found), "at")
    made = " ".join([clock(at) if at is not None else "", f"by {told.by}" if told.by else ""]).strip()
    return f"{what}. {told.what}; made {made}{f': {told.why}' if told.why else ''} ({name[:12]})."


def _outcomes(story: Story) -> Iterator[str]:
    event = story.event
    answered = [one for one in story.outcomes if one.get("result") != "lost"]
    for one in answered:
        yield _outcome(one)
    if any(one.get("result") == "lost" for one in story.outcomes):
        yield "The answer could not be handed to the caller: it had left."
    if answered:
        return
    if not story.decision.permit:
        yield "It was not called."
    elif event.get("page"):
        yield (
            "None was called: the gate answered itself."
            if event["page"] != "authz"
            else ("The proxy that asked called it itself; how that went, its own log says.")
        )
    else:
        yield (
            "The log holds no outcome. The client may have left before the upstream answered, or the log ends here; "
            "the upstream may have got the call."
        )


def _outcome(event: Event) -> str:
    result, name = text(event, "result"), event.get("upstream")
    after = ""
    if result == "answered":
        if (whole(event, "status") or 0) >= 400:
            after = " That is the upstream's own answer, which the gate passed on."
        said = f"{name} answered {event.get('status')}"
        said += f" after {event.get('upstream_ms')} ms" if whole(event, "upstream_ms") is not None else ""
        said += (
            f", with {event['response_bytes']:,} bytes" if whole(event, "response_bytes") is not None else ""
        )
    else:
        said = f"{name} {RESULTS.get(result or '', f'gave no answer ({result})')}"
        said += f"; the gate had waited {event.get('upstream_ms')} ms" if whole(event, "upstream_ms") else ""
    if whole(event, "tries") is not None:
        said += f", at the {event['tries']}. try"
    return f"{said}{'. In detail: ' + str(event['detail']) if event.get('detail') else ''}.{after}"


def _policy(story: Story) -> str:
    event = story.event
    if event.get("bundle") is None:
        return "No policy was in force yet, or none was looked at."
    number = whole(event, "sequence")
    said = f"Bundle {event['bundle']}" + (f", number {number} of the ledger" if number is not None else "")
    if story.bundle is not None and (told := change(story.bundle)) is not None:
        verb = "rolled back to" if told.kind == "rollback" else "published"
        said += f", {verb} by {told.by}" if told.by else ""
        seconds = moment(story.bundle)
        said += f"; in force here since {clock(int(seconds))}" if seconds is not None else ""
    return f"{said}."


def _trace(event: Event) -> str:
    said = f"Request {event.get('request_id')}"
    if event.get("trace_id") not in (None, event.get("request_id")):
        said += f", part of trace {event['trace_id']}"
    worker = event.get("worker") if isinstance(event.get("worker"), dict) else {}
    if worker and worker.get("location"):
        said += f"; decided in {worker['location']}"
    if worker and worker.get("version"):
        said += f" by Worker version {worker['version']}"
    return f"{said}."


def _place(event: Event) -> str:
    upstream = str(event.get("upstream"))
    return "the gate itself" if upstream == OWN else upstream
