"""Other policy engines, each with the policies in its own language. What they are asked with is made beforehand.

Each engine gets the form of the policies that it decides fastest by: what it has an index for, it may use.
"""

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from time import process_time
from typing import Any

from bench.decisions.policies import Policy, Question, policies
from bench.rig import BenchError

Ask = Callable[[], bool]
Prepare = Callable[[Question], Ask]

MODULES = {"pycasbin": "casbin"}
DIFFERENT = 512  # addresses, in turn
ROUND = 0.1  # seconds of CPU time that one round takes at most, or one decision if that takes longer


class Missing(Exception):
    """The engine isn't installed here. The message says so."""


class Rival:
    """An engine to compare with."""

    def __init__(
        self, name: str, title: str, package: str, how: str, read: Callable[[Any, Sequence[Policy]], Prepare]
    ) -> None:
        self.name, self.title, self.package, self.how, self._read = name, title, package, how, read
        self._prepare: Prepare | None = None
        self._asks: list[Ask] = []

    def load(self, size: int) -> float:
        """Read the policies. Returns the seconds that it took; raises Missing."""
        given = policies(size)
        try:
            module = import_module(MODULES.get(self.package, self.package))
        except ImportError as error:
            raise Missing(f"{self.package} is not installed") from error
        start = process_time()
        self._prepare = self._read(module, given)
        return process_time() - start

    def answers(self, asked: Sequence[Question]) -> list[bool]:
        return [self._prepared(question)() for question in asked]

    def time(self, question: Question) -> float:
        """Microseconds a decision, over at least a few different addresses."""
        if not self._asks:
            ends = [f"-{number}" for number in range(DIFFERENT)]
            self._asks = [self._prepared(question._replace(path=question.path + end)) for end in ends]
        done, seconds, start = 0, 0.0, process_time()
        while seconds < ROUND and done < DIFFERENT:
            if self._asks[done]() is not question.permit:
                raise BenchError(f"{self.title} decided wrongly: {question}")
            done, seconds = done + 1, process_time() - start
        return seconds / done * 1e6

    def forget(self) -> None:
        self._prepare, self._asks = None, []

    def _prepared(self, question: Question) -> Ask:
        assert self._prepare is not None
        return self._prepare(question)


def _cedar(cedarpy: Any, given: Sequence[Policy]) -> Prepare:
    text = "".join(
        [
            f'permit (principal in Role::"{role}", action == Action::"{method}", resource == Upstream::"{upstream}")'
            f' when {{ context.path like "{prefix}*" }};\n'
            for _, role, method, upstream, prefix in given
        ]
    )
    parsed = cedarpy.PolicySet.from_str(text)

    def prepare(question: Question) -> Ask:
        roles = [{"type": "Role", "id": role} for role in question.roles]
        caller = [{"uid": {"type": "User", "id": "etl"}, "attrs": {}, "parents": roles}]
        entities = cedarpy.Entities.from_json_str(json.dumps(caller))
        request = {
            "principal": 'User::"etl"',
            "action": f'Action::"{question.method}"',
            "resource": f'Upstream::"{question.upstream}"',
            "context": json.dumps({"path": question.path}),
        }
        return lambda: bool(cedarpy.is_authorized(request, parsed, entities).allowed)

    return prepare


CASBIN = """
[request_definition]
r = sub, up, obj, act
[policy_definition]
p = sub, up, obj, act
[role_definition]
g = _, _
[policy_effect]
e = some(where (p.eft == allow))
[matchers]
m = g(r.sub, p.sub) && r.up == p.up && r.act == p.act && keyMatch(r.obj, p.obj)
"""


def _casbin(casbin: Any, given: Sequence[Policy], fast: bool = False) -> Prepare:
    by = [1, 3]  # upstream and method: what a request must be equal to, and so can be looked up by
    model = casbin.FastModel(by) if fast else casbin.Model()
    model.load_model_from_text(CASBIN)
    lines = [f"p, {role}, {upstream}, {prefix}*, {method}" for _, role, method, upstream, prefix in given]
    adapter = casbin.StringAdapter("\n".join(lines))
    enforcer = (
        casbin.FastEnforcer(model, adapter, cache_key_order=by) if fast else casbin.Enforcer(model, adapter)
    )
    enforcer.enable_auto_save(False)  # the adapter can't, and needn't
    known: set[str] = set()

    def prepare(question: Question) -> Ask:
        caller = "+".join(question.roles)
        if caller not in known:
            known.add(caller)
            for role in question.roles:
                enforcer.add_role_for_user(caller, role)
        _, method, upstream, path, _ = question
        return lambda: bool(enforcer.enforce(caller, upstream, path, method))

    return prepare


def _fast_casbin(casbin: Any, given: Sequence[Policy]) -> Prepare:
    return _casbin(casbin, given, fast=True)


REGO = """
package gate
import rego.v1
default allow := false
allow if {
    some role in input.roles
    some prefix in data.prefixes[input.upstream][input.method][role]
    startswith(input.path, prefix)
}
"""


def _rego(regopy: Any, given: Sequence[Policy]) -> Prepare:
    prefixes: dict[str, dict[str, dict[str, list[str]]]] = {}
    for _, role, method, upstream, prefix in given:
        prefixes.setdefault(upstream, {}).setdefault(method, {}).setdefault(role, []).append(prefix)
    interpreter = regopy.Interpreter()
    interpreter.add_data_json(json.dumps({"prefixes": prefixes}))
    interpreter.add_module("gate", REGO)
    bundle = interpreter.build("data.gate.allow")

    def prepare(question: Question) -> Ask:
        roles, method, upstream, path, _ = question
        asked = regopy.Input({"roles": list(roles), "method": method, "upstream": upstream, "path": path})

        def ask() -> bool:
            interpreter.set_input(asked)
            return bool(interpreter.query_bundle(bundle)[0].expressions == [True])

        return ask

    return prepare


def rivals() -> list[Rival]:
    return [
        Rival("cedar", "Cedar, cedarpy", "cedarpy", "policies and the caller's entities parsed beforehand", _cedar),
        Rival("casbin", "Casbin, Enforcer", "pycasbin", "the caller's roles linked beforehand", _casbin),
        Rival(
            "casbin-fast", "Casbin, FastEnforcer", "pycasbin", "the same, policies found by upstream and method",
            _fast_casbin,
        ),
        Rival("rego", "Rego, regopy", "regopy", "compiled; data nested by upstream, method and role", _rego),
    ]  # fmt: skip
