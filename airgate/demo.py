"""`airgate demo`: a tour of the gate with real calls, each one checked.

It runs on free ports and in a temporary folder, beside whatever else runs here. Exit codes: 0 everything went as it
should, 1 something didn't (the reason is printed).
"""

import base64
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from airgate.audit.findings import KINDS
from airgate.audit.proof import prove
from airgate.audit.trusted import read_keys
from airgate.dev.audit import events
from airgate.dev.command import end_on_signals
from airgate.dev.signing import sign
from airgate.dev.stack import AUDIENCE, LocalStack, Ports, Stack, StackError, new_secrets
from airgate.dev.token import fetch_token
from airgate.node import PROJECT, NodeMissing, WranglerFailed
from airgate.policy.publish import PublishError, publish_local
from airgate.policy.seed import SeedError

ENTRY = {"account": "4711", "amount": "250.00"}
SEED_FILE = Path("policies/finance.yaml")
RULE_BEFORE = 'dag: ["finance_*"]'
RULE_AFTER = 'dag: ["finance_*", "revenue_*"]'
IN_FORCE_SECONDS = 15.0

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """A step did not go as it should. The message says what was expected, and what came."""


def demo() -> None:
    """A tour of the gate: real tokens, real calls, real policy changes. About half a minute."""
    end_on_signals()
    console.print(
        "[bold]Airgate, a tour.[/] A gate, an OpenID provider and a sample API, all on this machine.\n"
    )
    try:
        with tempfile.TemporaryDirectory(prefix="airgate-demo-") as folder:
            seed = Path(folder) / "kv-seed"
            shutil.copytree(PROJECT / "kv-seed", seed)
            local = LocalStack(
                Path(folder) / "stack",
                ports=Ports(0, 0, 0),
                secrets={
                    **new_secrets(),
                    "AUDIT_SECONDS": "1",
                },  # it signs sooner than usual: nobody waits here
                publish=lambda stack: publish_local(seed, stack, "the tour begins"),
                say=_progress,
            )
            with local as stack, httpx.Client(base_url=stack.gate, timeout=30, trust_env=False) as gate:
                Tour(stack, gate, seed).walk()
                _progress("Ending the gate, the provider and the sample API")
    except KeyboardInterrupt:
        console.print("\nThe tour was ended; so is everything it started.")
        raise typer.Exit(1) from None
    except (DemoFailed, StackError, NodeMissing, WranglerFailed, SeedError, PublishError) as error:
        console.print(f"\n[bold red]✗ The tour failed.[/] {escape(str(error))}")
        raise typer.Exit(1) from None
    console.print(
        "\n[bold green]Every step went as it should.[/] Next: `make dev` keeps the gate running to try things with."
    )


class Tour:
    """The steps, in order. Each raises DemoFailed when the gate does anything else than it should."""

    def __init__(self, stack: Stack, gate: httpx.Client, seed: Path) -> None:
        self._stack = stack
        self._gate = gate
        self._seed = seed
        self._number = 0
        self._refusal = ""  # request id of step 2, for step 8
        self._last = ""  # request id and token of step 6, for step 7
        self._token = ""

    def walk(self) -> None:
        """All steps."""
        steps: tuple[Callable[[], None], ...] = (
            self.permitted,
            self.wrong_role,
            self.wrong_dag,
            self.tampered,
            self.expired,
            self.edited_policy,
            self.on_record,
            self.proved,
        )
        for step in steps:
            step()

    def permitted(self) -> None:
        """Finance posts an entry."""
        self._title("The month-end DAG posts an entry to the ledger")
        answer = self._post("finance-etl", fetch_token(self._stack, "finance-etl"), dag="finance_close")
        self._expect(answer, 200)
        seen = answer.json()
        headers: Mapping[str, str] = seen["headers"]
        leaked = [name for name in headers if name.startswith("airgate-")]
        _require(not leaked, f"the upstream should see no header of the gate, but saw {', '.join(leaked)}")
        key = self._stack.secrets["UPSTREAM_LEDGER_TOKEN"]
        _require(
            headers["authorization"] == f"Bearer {key}",
            "the upstream should see the gate's own key in Authorization, but saw something else",
        )
        _require(
            json.loads(seen["body"]) == ENTRY,
            f"the upstream should receive the body intact, but got {seen['body']}",
        )
        _show("upstream saw", f"{seen['method']} {seen['path']}  {seen['body']}")
        _show("", f"headers: {', '.join(sorted(headers))}")
        _show("", f"authorization: Bearer {key[:11]}…, which only the gate knows")
        _tick(
            f"permitted by {answer.headers['Airgate-Policy']}; the token stayed at the gate, its key went on"
        )

    def wrong_role(self) -> None:
        """Sales tries the same."""
        self._title("The sales job tries the same call")
        answer = self._post("sales-sync", fetch_token(self._stack, "sales-sync"), dag="finance_close")
        problem = self._refused(answer, 403, "policy.no_match")
        self._refusal = problem["request_id"]
        _tick(f"refused: no policy lets sales write there. To ask for it: {problem['contact']}")

    def wrong_dag(self) -> None:
        """Finance's own token, in another DAG."""
        self._title("Finance's token, but in a DAG that no policy names")
        answer = self._post("finance-etl", fetch_token(self._stack, "finance-etl"), dag="revenue_close")
        self._refused(answer, 403, "policy.no_match")
        _tick("refused: the policy says finance_*")

    def tampered(self) -> None:
        """Sales writes itself into finance's group."""
        self._title("The sales job writes itself into finance's group")
        head, payload, signature = fetch_token(self._stack, "sales-sync").split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        claims["groups"] = ["finance-publishers"]
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        answer = self._post("sales-sync, groups changed", f"{head}.{forged}.{signature}", dag="finance_close")
        self._refused(answer, 401, "token.signature")
        _tick("refused: the signature doesn't fit what the token says now")

    def expired(self) -> None:
        """Yesterday's token."""
        self._title("A genuine token that expired an hour ago")
        now = int(time.time())
        claims = {
            "iss": self._stack.provider,
            "sub": "finance-etl",
            "aud": AUDIENCE,
            "client_id": "finance-etl",
            "jti": secrets.token_urlsafe(16),
            "iat": now - 7200,
            "exp": now - 3600,
            "groups": ["finance-publishers"],
            "airgate_kind": "workload",
        }
        answer = self._post(
            "finance-etl, an old token", sign(self._stack.provider_keys, claims), dag="finance_close"
        )
        self._refused(answer, 401, "token.expired")
        _tick("refused, though the provider's own key signed it")

    def edited_policy(self) -> None:
        """A rule changes while the gate runs."""
        self._title("Finance adds a DAG to its policy, while the gate runs")
        file = self._seed / SEED_FILE
        text = file.read_text(encoding="utf-8")
        _require(
            text.count(RULE_BEFORE) == 1, f"{SEED_FILE} should hold {RULE_BEFORE} once; has kv-seed changed?"
        )
        file.write_text(text.replace(RULE_BEFORE, RULE_AFTER), encoding="utf-8")
        _show(f"kv-seed/{SEED_FILE}", "")
        console.print(f"     [red]- {escape(RULE_BEFORE)}[/]\n     [green]+ {escape(RULE_AFTER)}[/]")
        _command("$ airgate policy publish")
        published = publish_local(self._seed, self._stack, "revenue DAGs close their own books")
        _show(
            "published",
            f"bundle {published.bundle[:12]}, number {published.sequence}: "
            + ", ".join(map(str, published.changes)),
        )
        token = fetch_token(self._stack, "finance-etl")
        start = time.monotonic()
        answer = self._send(token, "revenue_close")
        while answer.status_code == httpx.codes.FORBIDDEN and time.monotonic() - start < IN_FORCE_SECONDS:
            time.sleep(0.25)
            answer = self._send(token, "revenue_close")
        took = time.monotonic() - start
        self._print_call("finance-etl", "revenue_close", answer)
        self._expect(answer, 200)
        _tick(f"the call of step 3 passes now, {took:.1f} s after publishing; nothing was restarted")
        self._last = answer.headers["Airgate-Request-Id"]
        self._token = token

    def on_record(self) -> None:
        """What the audit log says of it."""
        self._title("What the audit log holds of that last call")
        found = events(self._stack.audit, self._last, count=2)
        names = [event["event"] for event in found]
        _require(
            names == ["decision", "outcome"],
            f"one decision and one outcome should be on record, but there is: {names}",
        )
        key = self._stack.secrets["UPSTREAM_LEDGER_TOKEN"]
        log = self._stack.log.read_text(encoding="utf-8") + self._stack.audit.read_text(encoding="utf-8")
        _require(self._token.rpartition(".")[2] not in log, "no log should hold a token, but one does")
        _require(key not in log, "no log should hold the upstream's key, but one does")
        decision, outcome = found
        _show(
            "decision",
            _brief(
                decision,
                "time",
                "request_id",
                "subject",
                "roles",
                "workload",
                "decision",
                "permits",
                "credential",
                "bundle",
            ),
        )
        _show("outcome", _brief(outcome, "upstream", "result", "status", "upstream_ms"))
        _tick("the decision was written before the call was forwarded; no log holds token or key")

    def proved(self) -> None:
        """Somebody takes a line out of the log."""
        self._title("Somebody takes the sales job's refusal out of a copy of the log")
        log = self._signed_log()
        kept = [line for line in log if self._refusal not in line]
        _require(len(kept) == len(log) - 1, "one line should be about the call of step 2")
        for name, lines, whole in (("audit.ndjson", log, True), ("copy.ndjson", kept, False)):
            file = self._seed.parent / name
            file.write_text("".join(lines), encoding="utf-8")
            _command(f"$ airgate audit verify {name} --keys audit-keys.json")
            with prove([file], read_keys(self._stack.audit_keys)) as proof:
                failures = [finding for finding in proof.findings if finding.failure]
                if whole:
                    _require(not failures, f"the log should be whole, but: {failures}")
                    _show(
                        "whole",
                        f"{proof.proved} events, as the gate wrote them; {proof.checkpoints} signed checkpoints",
                    )
                else:
                    _require(
                        [one.kind for one in failures] == ["missing"],
                        f"the line should be missed, but: {failures}",
                    )
                    _show(
                        "not whole",
                        f"{name}: {KINDS['missing'].meaning} {failures[0].text.replace(f'{file.parent}/', '')}",
                    )
        _tick("every line holds on to the one before, and the gate signs how far it has come")

    def _signed_log(self) -> list[str]:
        """The log's lines, once the gate has signed for all that are there now."""
        deadline = time.monotonic() + IN_FORCE_SECONDS
        while time.monotonic() < deadline:
            lines = self._stack.audit.read_text(encoding="utf-8").splitlines(keepends=True)
            events = [json.loads(line) for line in lines if line.endswith("\n")]
            signed = [json.loads(one["document"]) for one in events if one["event"] == "checkpoint"]
            last = max(one["position"] for one in events if one["event"] != "checkpoint")
            if signed and signed[-1]["position"] >= last:
                return lines[: len(events)]
            time.sleep(0.1)
        raise DemoFailed("Here the gate should have signed its log, but didn't.")

    def _title(self, text: str) -> None:
        self._number += 1
        console.print(f"\n[bold cyan]{self._number}[/]  [bold]{text}[/]")

    def _post(self, who: str, token: str, *, dag: str) -> httpx.Response:
        answer = self._send(token, dag)
        self._print_call(who, dag, answer)
        return answer

    def _send(self, token: str, dag: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}", "Airgate-Dag-Id": dag}
        try:
            return self._gate.post("/ledger/v1/entries", json=ENTRY, headers=headers)
        except httpx.TransportError as error:
            raise DemoFailed(f"the gate should answer, but: {error}") from None

    def _refused(self, answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
        """The refusal's problem document, printed. Raises DemoFailed when it isn't the expected one."""
        self._expect(answer, status)
        problem: dict[str, Any] = answer.json()
        _show("answer", _brief(problem, "title", "code", "request_id", "contact"))
        _require(problem["code"] == code, f"the code should be {code}, but is {problem['code']}")
        return problem

    def _expect(self, answer: httpx.Response, status: int) -> None:
        if answer.status_code != status:
            # The answer is dull on purpose; the full reason is on record.
            found = events(self._stack.audit, answer.headers.get("Airgate-Request-Id", ""))
            record = "; ".join(json.dumps(event) for event in found) or "nothing"
            came = f"{answer.status_code}: {answer.text[:500]}"
            raise DemoFailed(f"The status should be {status}, but is {came}\nThe audit log holds: {record}")

    def _print_call(self, who: str, dag: str, answer: httpx.Response) -> None:
        header = f'-H "Authorization: Bearer <{who}>" -H "Airgate-Dag-Id: {dag}"'
        _command(f"$ curl -X POST {header} \\")
        _command(f"    -d '{json.dumps(ENTRY)}' {self._stack.gate}/ledger/v1/entries")
        _show("status", f"{answer.status_code} {answer.reason_phrase}")


def _require(truth: bool, otherwise: str) -> None:
    if not truth:
        raise DemoFailed(f"Here {otherwise}.")


def _brief(value: Mapping[str, Any], *names: str) -> str:
    return json.dumps({name: value[name] for name in names if name in value}, ensure_ascii=False)


def _show(label: str, text: str) -> None:
    console.print(f"     [dim]{escape(label):<13}[/]{escape(text)}")


def _command(text: str) -> None:
    console.print(f"     {text}", style="bold", markup=False)


def _tick(text: str) -> None:
    console.print(f"     [green]✓ {escape(text)}[/]")


def _progress(text: str) -> None:
    console.print(f"[dim]{escape(text)} …[/]")
