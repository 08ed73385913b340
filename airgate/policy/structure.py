"""The structure of a seed's files: the JSON Schema beside the starter seed, and words for what it has against one."""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from airgate.node import PROJECT
from airgate.policy.source import Keys, Problem, Source
from airgate.policy.words import either, nearest, quoted

STARTER = PROJECT / "kv-seed"
SCHEMA = STARTER / "schema" / "airgate.schema.json"

WHY_NOT = {
    "HS256": "it needs a secret shared with the issuer, and whoever can verify with that can also sign",
    "none": "it means no signature at all",
}

Holds = Callable[[Any], bool]


def structure(source: Source, validator: Validator | None = None) -> Iterator[Problem]:
    """What the JSON Schema has against the file, in words. `validator`: of another schema than the seed's."""
    for error in (validator or seed_validator()).iter_errors(source.data):
        keys: Keys = tuple(error.absolute_path)
        value, want, schema = _parts(error)
        if "propertyNames" in error.absolute_schema_path:
            yield source.problem((*keys, value), _explain(error), at_key=True)
        elif error.validator == "additionalProperties":
            known = list(schema["properties"])
            for key in (key for key in value if key not in known):
                yield source.problem((*keys, key), _unknown_key(key, known), at_key=True)
        elif error.validator == "required":
            yield source.problem(keys, _missing([key for key in want if key not in value], schema))
        elif error.validator == "dependentRequired":
            for key, needs in want.items():
                for needed in needs if key in value else ():
                    text = f'"{needed}" is missing; "{key}" is unique only together with it'
                    yield source.problem(keys, text)
        elif error.validator == "uniqueItems":
            number = _repeated(value) or 0
            yield source.problem((*keys, number), f"{quoted(value[number])}: stands here twice")
        else:
            yield source.problem(keys, _explain(error))


@functools.cache
def seed_validator() -> Validator:
    """The seed's JSON Schema. What is right is found to be so by functions made from it, many times faster."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    made: dict[str, Holds] = {}
    by_reference = Draft202012Validator.VALIDATORS["$ref"]

    def reference(validator: Any, ref: str, value: Any, inner: Any) -> Iterable[ValidationError]:
        valid = _function({"$ref": ref}, schema, made)(value)
        return () if valid else by_reference(validator, ref, value, inner)

    own = {"$ref": reference, "uniqueItems": _unique}
    quick = extend(Draft202012Validator, own)
    validator: Validator = quick(schema)
    return validator


def _unique(_: Any, wanted: bool, value: Any, __: Any) -> Iterator[ValidationError]:
    """As the library's, in linear time."""
    if wanted and isinstance(value, list) and _repeated(value) is not None:
        yield ValidationError("an item stands there twice")


def _repeated(items: list[Any]) -> int | None:
    """The number of the first item that stands before it already."""
    if all([type(item) is str for item in items]) and len(set(items)) == len(items):
        return None
    seen: set[str] = set()
    for number, item in enumerate(items):
        # 1.0 is 1 to JSON Schema, and true is not.
        plain = int(item) if isinstance(item, float) and item.is_integer() else item
        text = json.dumps(plain, sort_keys=True)
        if text in seen:
            return number
        seen.add(text)
    return None


_TYPES: dict[str, Holds] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: (
        value.is_integer()
        if isinstance(value, float)
        else isinstance(value, int) and not isinstance(value, bool)
    ),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_SAY_NOTHING = frozenset({"$schema", "$defs", "title", "description", "default", "examples", "then", "else"})


def holds(schema: Mapping[str, Any]) -> Holds:
    """A function that says whether a value is valid under a schema, of those keywords that the seed's one uses."""
    return _function(schema, schema, {})


def _function(schema: Mapping[str, Any], root: Mapping[str, Any], made: dict[str, Holds]) -> Holds:
    tests = [_keyword(name, schema, root, made) for name in schema if name not in _SAY_NOTHING]
    if len(tests) == 1:
        return tests[0]
    return lambda value: all([test(value) for test in tests])


def _keyword(name: str, schema: Mapping[str, Any], root: Mapping[str, Any], made: dict[str, Holds]) -> Holds:
    want = schema[name]

    def function(inner: Mapping[str, Any]) -> Holds:
        return _function(inner, root, made)

    match name:
        case "$ref":
            if want not in made:
                made[want] = lambda value: made[want](value)  # until it is there: it may be of itself
                inner = functools.reduce(lambda at, key: at[key], want.removeprefix("#/").split("/"), root)
                made[want] = function(inner)
            return made[want]
        case "type":
            types = [_TYPES[each] for each in ([want] if isinstance(want, str) else want)]
            return types[0] if len(types) == 1 else lambda value: any([test(value) for test in types])
        case "enum" | "const":
            # 1 is True to Python, and isn't to JSON Schema.
            words = frozenset((type(word), word) for word in ([want] if name == "const" else want))
            return lambda value: isinstance(value, str | bool) and (type(value), value) in words
        case "pattern":
            search = re.compile(want).search
            return lambda value: not isinstance(value, str) or search(value) is not None
        case "minLength":
            return lambda value: not isinstance(value, str) or len(value) >= want
        case "maxLength":
            return lambda value: not isinstance(value, str) or len(value) <= want
        case "minimum":
            return lambda value: not _TYPES["number"](value) or value >= want
        case "maximum":
            return lambda value: not _TYPES["number"](value) or value <= want
        case "minItems":
            return lambda value: not isinstance(value, list) or len(value) >= want
        case "maxItems":
            return lambda value: not isinstance(value, list) or len(value) <= want
        case "uniqueItems":
            return lambda value: not isinstance(value, list) or _repeated(value) is None
        case "items":
            item = function(want)
            return lambda value: not isinstance(value, list) or all([item(each) for each in value])
        case "contains":
            some = function(want)
            return lambda value: not isinstance(value, list) or any([some(each) for each in value])
        case "minProperties":
            return lambda value: not isinstance(value, dict) or len(value) >= want
        case "maxProperties":
            return lambda value: not isinstance(value, dict) or len(value) <= want
        case "required":
            return lambda value: not isinstance(value, dict) or all([key in value for key in want])
        case "dependentRequired":
            return lambda value: (
                not isinstance(value, dict)
                or all([needed in value for key, needs in want.items() if key in value for needed in needs])
            )
        case "propertyNames":
            key_holds = function(want)
            return lambda value: not isinstance(value, dict) or all([key_holds(key) for key in value])
        case "properties":
            members = {key: function(inner) for key, inner in want.items()}
            return lambda value: (
                not isinstance(value, dict)
                or all([members[key](inner) for key, inner in value.items() if key in members])
            )
        case "additionalProperties":
            known = frozenset(schema.get("properties", ()))
            if want is False:
                return lambda value: not isinstance(value, dict) or known.issuperset(value)
            other = function(want)
            return lambda value: (
                not isinstance(value, dict)
                or all([other(inner) for key, inner in value.items() if key not in known])
            )
        case "anyOf":
            each = [function(inner) for inner in want]
            return lambda value: any([test(value) for test in each])
        case "oneOf":
            branches = [function(inner) for inner in want]
            return lambda value: sum([test(value) for test in branches]) == 1
        case "not":
            unwanted = function(want)
            return lambda value: not unwanted(value)
        case "if":
            test, then, otherwise = (function(schema.get(key, {})) for key in ("if", "then", "else"))
            return lambda value: then(value) if test(value) else otherwise(value)
    raise ValueError(f"the schema uses {name}, which is not read here")


def _unknown_key(key: str, known: list[str]) -> str:
    return f"{quoted(key)}: no such key here" + (nearest(key, known) or f"; known here: {', '.join(known)}")


def _missing(missing: list[str], schema: dict[str, Any]) -> str:
    text = " and ".join(f'"{key}"' for key in missing) + (
        " is missing" if len(missing) == 1 else " are missing"
    )
    return f"{text}; {schema['description']}" if "description" in schema else text


def _explain(error: ValidationError) -> str:
    """One schema error as a sentence: what is there, and what would be right."""
    value, want, schema = _parts(error)
    shown, hint = quoted(value), schema.get("description", "")
    match error.validator:
        case "type":
            return _wrong_type(value, [want] if isinstance(want, str) else want, hint)
        case "enum":
            if str(value) in WHY_NOT and "RS256" in want:
                return f"{shown}: refused, since {WHY_NOT[str(value)]}; use {either(want)}"
            return f"{shown}: expected {either(want)}" + (
                nearest(value, want) if isinstance(value, str) else ""
            )
        case "const":  # a single word in place of a list, which only this one may be
            return f'{shown}: expected a list: [{value}], or "{want}"'
        case "minItems" | "minProperties" if not value:
            return f"is empty; leave the key out, or write {hint or 'at least one'}"
        case "maxLength" | "maxItems" | "maxProperties":
            return f"{shown}: longer than {want}"
        case "minimum":
            return f"{shown}: less than {want}"
        case "maximum":
            return f"{shown}: more than {want}"
        case "anyOf":
            return f"says nothing; write {either([branch['required'][0] for branch in want])}"
        case "not":
            return str(hint)
    known = schema.get("examples", ())
    return f"{shown}: {hint or error.message}" + (nearest(value, known) if isinstance(value, str) else "")


def _parts(error: ValidationError) -> tuple[Any, Any, Any]:
    return error.instance, error.validator_value, error.schema


def _wrong_type(value: object, want: list[str], hint: str) -> str:
    words = {
        "string": "text",
        "array": "a list",
        "object": "a mapping",
        "boolean": "true or false",
        "integer": "a whole number",
        "number": "a number",
    }
    expected = either([words[name] for name in want])
    text = f"is empty; expected {expected}" if value is None else f"{quoted(value)}: expected {expected}"
    if want == ["array"] and isinstance(value, str):
        text += f": [{value}]"
    elif "string" in want and isinstance(value, int | float) and "unit" not in hint:
        text += f'; is it a word? Then quote it: "{quoted(value)}"'
    return text + (f" ({hint})" if hint else "")
