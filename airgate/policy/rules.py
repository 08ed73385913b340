"""From a policy as its author wrote it to a rule: conditions as rows, in one spelling (docs/kv-schema.md).

The seed has been found to be right by then; nothing is checked here.
"""

from collections.abc import Iterator
from typing import Any

from airgate.engine import BY, NAMED, QUANTIFIERS, RESOURCE
from airgate.policy import limits, when
from airgate.policy.durations import seconds
from airgate.policy.index import Row, Rule
from airgate.policy.words import listed

NEVER_ASSERTED = (
    "run_type",
    "triggered_by",
)  # of NAMED, what no header says: it counts where a token attests it
UTC = "UTC"  # the zone of dates that name none
EXCHANGED_FOR = "5m"  # how long a token that the gate signs is good for, where its permit doesn't say


def rule(data: dict[str, Any]) -> Rule:
    """One policy, compiled."""
    target = data["target"]
    asks = "resource" in target
    methods = listed(target["actions" if asks else "methods"])
    return Rule(
        id=data["id"],
        owner=data["owner"],
        effect=data["effect"],
        shadow=data.get("mode") == "shadow",
        methods=["*"] if "*" in methods else methods,
        paths=["/*"] if asks else target["paths"],
        conditions=list(_conditions(data)),
        obligations=_obligations(data),
    )


def upstreams(data: dict[str, Any]) -> list[str]:
    """Whose shards a policy belongs to: its upstreams, or the resource types that it is about."""
    target = data["target"]
    if "resource" in target:
        return [RESOURCE + name for name in listed(target["resource"])]
    return listed(target["upstream"])


def claims(rules: list[Rule]) -> list[list[str]]:
    """The paths of all claims that conditions read."""
    rows = [row for rule in rules for row in rule.conditions]
    paths = {tuple(row[1]) for row in rows if row[0].startswith("subject.claims.")}
    compared = {name for row in rows if row[0] == "when.equals" for name in row[1:3]}
    own = {"subject.id", "subject.issuer", "subject.kind"}  # no claims
    paths |= {(name.partition(".")[2],) for name in compared - own if name.startswith("subject.")}
    return [list(path) for path in sorted(paths)]


def text(value: str | float) -> str:
    """A value as conditions compare it: as JSON writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(int(value))


def _conditions(data: dict[str, Any]) -> Iterator[Row]:
    subject, workload, target = data.get("subject", {}), data.get("workload", {}), data["target"]
    attested = workload.get("attested", False)
    for name in ("issuer", "id", "kind"):
        if name in subject:
            yield [f"subject.{name}", sorted(listed(subject[name]))]
    for name in ("dpop", "delegated"):
        if name in subject:
            yield [f"subject.{name}", subject[name]]
    yield from _held("subject.roles", subject.get("roles", {}))
    for item in subject.get("claims", []):
        yield from _held("subject.claims", item, listed(item["claim"]))
    for name in NAMED:
        if name in workload:
            yield [f"workload.{name}", listed(workload[name]), attested]
    yield from [[*row, attested] for row in _held("workload.tags", workload.get("tags", {}))]
    for item in target.get("query", []):
        yield from _held("target.query", item, item["parameter"])
    for item in target.get("properties", []):
        yield from _held("target.properties", item, item["property"])
    if "ids" in target:
        yield ["target.ids", listed(target["ids"])]
    yield from _when(data.get("when", {}), attested)


def _held(name: str, values: dict[str, Any], *which: Any) -> Iterator[Row]:
    for quantifier in QUANTIFIERS:
        if quantifier in values:
            yield [f"{name}.{quantifier}", *which, sorted(set(map(text, values[quantifier])))]


def _when(data: dict[str, Any], attested: bool) -> Iterator[Row]:
    if "time" in data:
        time = data["time"]
        window = when.minute(time.get("from", "00:00")), when.minute(time.get("to", "24:00"), ends=True)
        of_month = [when.month_days(time["month_days"])] if "month_days" in time else []
        yield ["when.time", time["zone"], when.days(time.get("days", "mon-sun")), *window, *of_month]
    if "dates" in data:
        dates = data["dates"]
        zone = dates.get("zone", UTC)
        yield [
            "when.dates",
            when.moment(dates["from"], zone) if "from" in dates else None,
            when.moment(dates["until"], zone, ends=True) if "until" in dates else None,
        ]
    if "ip" in data:
        yield ["when.ip", sorted({when.network(item) for item in listed(data["ip"])})]
    if "country" in data:
        yield ["when.country", sorted(listed(data["country"]))]
    for pair in when.pairs(data["equals"]) if "equals" in data else []:
        # Where neither looks at the workload, who vouches for it says nothing.
        yield ["when.equals", *pair, attested and when.asks_workload(pair)]


def _obligations(data: dict[str, Any]) -> dict[str, Any] | None:
    obligations = dict(data.get("obligations", {}))
    if "rate_limit" in obligations:
        given = obligations["rate_limit"]
        limited = [_limit(item) for item in (given if isinstance(given, list) else [given])]
        obligations["rate_limit"] = sorted(limited, key=lambda each: (each["per"], each["limit"], each["by"]))
    if "max_body" in obligations:
        obligations["max_body"] = limits.size(obligations["max_body"])
    if "require" in obligations:
        require = obligations["require"]
        obligations["require"] = {
            "headers": sorted(name.lower() for name in listed(require.get("headers", []))),
            "justification": require.get("justification", False),
        }
    if "asking" in data:
        asking = data["asking"]
        obligations["asking"] = {
            "about": asking.get("about", "self"),
            "trust": sorted(asking.get("trust", [])),
        }
    if "exchange" in data:
        exchange = data["exchange"]
        obligations["exchange"] = {
            "bound": exchange.get("bound", False),
            "lifetime": seconds(exchange.get("lifetime", EXCHANGED_FOR)),
            "roles": sorted(listed(exchange["roles"])) if "roles" in exchange else None,
            "upstreams": sorted(listed(exchange["upstreams"])),
        }
    return obligations or None


def _limit(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "limit": int(item["limit"]),
        "per": limits.PERIODS[item["per"]],
        "by": sorted(listed(item["by"]), key=BY.index),
    }
