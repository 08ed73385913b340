"""JavaScript's functions as Python calls them, each looked up once.

Every crossing between the two costs microseconds, and a look-up on an object is one: a method found there is a new
proxy each time, and an attribute is looked for among the proxy's own first. A plain function is quicker than both.
"""

import functools
from typing import Any

import js
from pyodide.ffi import to_js

# WebCrypto's names for RFC 7518's algorithms: what importKey needs, and what verify needs.
ALGORITHMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "RS256": ({"name": "RSASSA-PKCS1-v1_5", "hash": "SHA-256"}, {"name": "RSASSA-PKCS1-v1_5"}),
    "PS256": ({"name": "RSA-PSS", "hash": "SHA-256"}, {"name": "RSA-PSS", "saltLength": 32}),
    "ES256": ({"name": "ECDSA", "namedCurve": "P-256"}, {"name": "ECDSA", "hash": "SHA-256"}),
    "ES384": ({"name": "ECDSA", "namedCurve": "P-384"}, {"name": "ECDSA", "hash": "SHA-384"}),
    "ES512": ({"name": "ECDSA", "namedCurve": "P-521"}, {"name": "ECDSA", "hash": "SHA-512"}),
    "EdDSA": ({"name": "Ed25519"}, {"name": "Ed25519"}),
}


def present(value: Any) -> bool:
    """Whether it is something: newer Pyodides have a value of its own for null, older ones None."""
    return value is not None and type(value).__name__ != "JsNull"


def _function(method: Any) -> Any:
    """A method as a plain function, whose first argument is the object."""
    return method.call.bind(method)


def _getter(kind: Any, name: str) -> Any:
    """What reads an attribute of objects of a kind, as a plain function."""
    prototype = kind.prototype
    while not present(described := js.Object.getOwnPropertyDescriptor(prototype, name)):
        prototype = js.Object.getPrototypeOf(prototype)
    return _function(described.get)


class JavaScript:
    """The functions. `javascript()` has them: at module level nothing of JavaScript may be made."""

    def __init__(self) -> None:
        self.from_entries = js.Object.fromEntries
        self.array_from = getattr(js.Array, "from")
        self.join = _function(js.Array.prototype.join)
        self.apply, self.bind = js.Function.prototype.apply, _function(js.Function.prototype.bind)
        self.promise = js.Promise
        self.race = js.Promise.race
        self.with_resolvers = js.Promise.withResolvers
        self.set_timeout, self.clear_timeout = js.setTimeout, js.clearTimeout
        self.log = js.console.log

        self.subtle = js.crypto.subtle
        self.verify = self.applied(js.crypto.subtle.verify, js.crypto.subtle)
        self.sign = self.applied(js.crypto.subtle.sign, js.crypto.subtle)
        self.verifying = {name: self.plain(verifying) for name, (_, verifying) in ALGORITHMS.items()}

        self.method, self.url = _getter(js.Request, "method"), _getter(js.Request, "url")
        self.request_headers, self.request_body = _getter(js.Request, "headers"), _getter(js.Request, "body")
        self.fetch = self.applied(js.fetch, None)
        self.status, self.body = _getter(js.Response, "status"), _getter(js.Response, "body")
        self.headers = _getter(js.Response, "headers")
        self.new_response = js.Response.new
        self.fixed_length, self.identity = js.FixedLengthStream.new, js.IdentityTransformStream.new
        self.keys = _function(js.Headers.prototype.keys)
        self.get_header = _function(js.Headers.prototype.get)
        self.set_header = _function(js.Headers.prototype.set)
        self.new_controller = js.AbortController.new
        self.abort = _function(js.AbortController.prototype.abort)  # which a timer can call without a proxy

    def applied(self, function: Any, this: Any) -> Any:
        """A function as one that takes its arguments as a list."""
        return self.bind(self.apply, function, this)

    def plain(self, value: Any) -> Any:
        """Of JavaScript's own: dictionaries as plain objects, lists as arrays, and what is in them."""
        return to_js(value, dict_converter=self.from_entries)


@functools.cache
def javascript() -> JavaScript:
    return JavaScript()
