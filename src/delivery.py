"""The call to the upstream: with the gate's credential, within its limits, and again only where that is safe.

A call may be tried again when its method is idempotent or it has an Idempotency-Key (RFC 9110 §9.2.2), its body can be
sent a second time, and the upstream's budget of retries is not used up. After a 401 the gate gets a new token, once:
whoever says 401 has not acted.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import assertion
import sigv4
from breaker import Health
from credential import Basic, Credential, Header, Own, SigV4, fixed, read, value
from minted import Mint, Minted
from model import Denied, Inbound, Outbound, Reason, UpstreamAnswer
from upstream import Upstream

HELD = 1_048_576  # bytes of a body that can be signed, or sent again
SMALL = 65_536  # bytes of one that is waited for, so that a slow caller is told from a slow upstream
FIRST_WAIT = 0.1  # seconds before the first retry; each that follows waits twice as long
LONGEST_WAIT = 2.0
LEASE = 5.0  # seconds beyond an upstream's time limit after which a call counts as given up

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_FAILING = frozenset({502, 503, 504})  # an upstream in trouble, or one behind it
_UNANSWERED = frozenset({Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_TIMEOUT})


class Ports(Mint, Protocol):
    """What a delivery needs of the outside world."""

    async def sleep(self, seconds: float) -> None: ...
    def random(self) -> float: ...
    async def hold(self, limit: int, timeout: float) -> None:
        """Keep the request's body, so that it can be sent more than once. Raises Denied `request.body_*`."""

    def held(self) -> bytes:
        """The body that is kept; nothing, when none is."""

    async def send(self, call: Outbound) -> UpstreamAnswer:
        """Raises Denied `upstream.unreachable` or `upstream.timeout`."""

    def header(self, answer: UpstreamAnswer, name: str) -> str | None: ...
    async def discard(self, answer: UpstreamAnswer) -> None:
        """Let go of an answer that nobody will read."""


class Delivery:
    """One call, and what decides how it may be made."""

    __slots__ = (
        "call",
        "credential",
        "health",
        "held",
        "inbound",
        "minted",
        "refuse",
        "sent",
        "token",
        "upstream",
        "vouch",
    )

    def __init__(
        self,
        call: Outbound,
        upstream: Upstream,
        credential: Credential | None,
        inbound: Inbound,
        health: Health,
        minted: Minted,
        vouch: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self.call = call
        self.upstream = upstream
        self.credential = credential
        self.inbound = inbound
        self.health = health
        self.minted = minted
        self.refuse: Callable[[], None] | None = None  # looks, before every try, whether it may still be made
        self.vouch = vouch  # makes the assertion; anew for every try, since it ends soon
        self.held = False  # whether the body is here, and can be sent more than once
        self.sent = 0  # times that it went to the upstream
        self.token = ""  # that the last try was made with, where the gate gets tokens for itself

    async def send(self, ports: Ports) -> UpstreamAnswer:
        """The upstream's answer. Raises Denied."""
        self.held = self.inbound.has_body and await self._held(ports)
        repeatable = self.held or not self.inbound.has_body
        most = 1 + self.upstream.retries if repeatable and self._idempotent() else 1
        answer = await self._tried(ports, most)
        if answer.status != 401 or not await self._renewed(ports, repeatable):
            return answer
        await ports.discard(answer)
        return await self._tried(ports, 1)

    async def _tried(self, ports: Ports, most: int) -> UpstreamAnswer:
        tries = 0
        while True:
            tries += 1
            asked = None  # how long the upstream wants to be left alone
            try:
                answer = await self._once(ports)
            except Denied as refused:
                # After a time limit nobody waits as long again; a refusal of the gate's own would only come again.
                if refused.reason is not Reason.UPSTREAM_UNREACHABLE or not self._again(ports, tries, most):
                    raise
            else:
                if answer.status not in _FAILING or tries >= most:
                    return answer
                asked = ports.header(answer, "retry-after")
                if not _soon(asked) or not self._again(ports, tries, most):
                    return answer
                await ports.discard(answer)
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * (0.5 + ports.random() / 2)
            await ports.sleep(wait if asked is None else max(wait, float(asked)))

    async def _renewed(self, ports: Ports, repeatable: bool) -> bool:
        """Whether there is another token in place of the one that the upstream refused, and the call can use it."""
        of, refused = self.credential, self.token
        if of is None or isinstance(of, Header | Basic | SigV4 | Own):
            return False
        if not self.minted.forget(of, refused, ports.now()) or not repeatable:
            return False
        try:
            return await self.minted.token(of, ports) != refused
        except Denied:  # the answer that is there says more
            return False

    def _again(self, ports: Ports, tries: int, most: int) -> bool:
        return tries < most and self.health.may_retry(ports.now())

    async def _once(self, ports: Ports) -> UpstreamAnswer:
        ticket = self.health.admit(self.upstream.limits, ports.now(), self.call.timeout + LEASE)
        failed: bool | None = None  # nothing is known of the upstream, as long as it was not called
        try:
            call = self.call
            if self.refuse is not None:
                self.refuse()
            if self.vouch is not None:
                call.headers[assertion.HEADER] = await self.vouch()
            if self.credential is not None:
                call = await self._shown(call, self.credential, ports)
            self.sent += 1
            answer = await ports.send(call)
            failed = answer.status in _FAILING
        except Denied as refused:
            # While a body flows by, it may be the caller who is slow, or has left: then nobody can tell.
            if refused.reason in _UNANSWERED and (self.held or not self.inbound.has_body):
                failed = True
            raise
        finally:
            self.health.settle(ticket, failed, ports.now())
        return answer

    async def _shown(self, call: Outbound, credential: Credential, ports: Ports) -> Outbound:
        """The call with the headers that stand for the gate at the upstream. Raises Denied `upstream.credential`."""
        if isinstance(credential, Header | Basic):
            name, text = fixed(credential, ports.secret)
            call.headers[name] = text
        elif isinstance(credential, SigV4):
            secret = read(credential.secret, ports.secret)
            body = ports.held() if credential.payload == "signed" else None
            signed = sigv4.sign(credential, secret, call.method, call.url, call.headers, body, ports.now())
            return call._replace(url=signed.url, headers=signed.headers)
        elif not isinstance(credential, Own):  # the caller's own is there already
            self.token = token = await self.minted.token(credential, ports)
            call.headers[credential.header] = value(token, credential.secret, credential.format, "{token}")
        return call

    def _idempotent(self) -> bool:
        # The key that the upstream gets: one that goes no further protects nothing.
        return self.call.method in _IDEMPOTENT or bool(self.call.headers.get("idempotency-key"))

    async def _held(self, ports: Ports) -> bool:
        """Keep the body, where that is of use. Returns whether it can be sent more than once."""
        credential = self.credential
        signed = isinstance(credential, SigV4) and credential.payload == "signed"
        if not signed:
            renewable = not isinstance(credential, Header | Basic | SigV4 | Own | None)
            again = renewable or (self.upstream.retries > 0 and self._idempotent())
            most = HELD if again else SMALL if self.upstream.limits.failures is not None else -1
            if not 0 <= declared(self.inbound) <= most:
                return False
        await ports.hold(HELD, self.call.timeout)
        return True


def declared(inbound: Inbound) -> int:
    """The length of a request's body in bytes, as its sender says; -1 where it does not (RFC 9112 §6.3)."""
    length = inbound.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) <= 15 else -1


def _soon(asked: str | None) -> bool:
    """Whether an upstream may be called again within the time that a caller can be kept waiting."""
    return asked is None or (
        asked.isascii() and asked.isdigit() and len(asked) < 4 and int(asked) <= LONGEST_WAIT
    )
