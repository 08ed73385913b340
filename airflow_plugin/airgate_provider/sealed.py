"""An attested connection as a trigger carries it: sealed, since whatever a trigger carries is kept in the clear.

When a task defers, Airflow 3.3 writes the arguments of its trigger into the database as they come from the worker, and
a worker has no key to encrypt them with. So the API server seals the connection as it hands it out, with Airflow's
Fernet key: the triggerer has the same one, the worker only passes it on.
"""

from __future__ import annotations

import json
from typing import Any

from airgate_provider import compat, settings
from airgate_provider.errors import ConnectionInvalid
from airgate_provider.fields import ATTESTED_SEALED
from airgate_provider.settings import Settings

PARTS = ("conn_id", "conn_type", "host", "schema", "port", "password")


def attach(connection: Any) -> None:
    """Add a sealed copy to an attested connection that is handed out. Nothing is added without a Fernet key."""
    from airflow.models.crypto import get_fernet

    fernet = get_fernet()
    if not fernet.is_encrypted:
        return
    extra = connection.extra_dejson
    copy = {**{name: getattr(connection, name) for name in PARTS}, "extra": extra}
    text = fernet.encrypt(json.dumps(copy).encode()).decode()
    connection.extra = json.dumps({**extra, ATTESTED_SEALED: text})


def opened(text: str, session: str, upstream: str | None = None) -> Settings:
    """What is sealed in a trigger's argument, in the triggerer, for the task instance whose trigger it is.

    Raises ConnectionInvalid.
    """
    from airflow.models.crypto import get_fernet
    from cryptography.fernet import InvalidToken

    fernet = get_fernet()
    try:
        if not fernet.is_encrypted:
            raise InvalidToken
        copy = json.loads(fernet.decrypt(text.encode()))
    except InvalidToken:
        raise ConnectionInvalid(
            "The triggerer cannot open the token that this task was deferred with. It needs the same [core] fernet_key "
            "as Airflow's API server."
        ) from None
    connection = compat.make_connection(**{**copy, "extra": json.dumps(copy["extra"])})
    said = settings.read(connection, copy["extra"], upstream)
    # Else the triggerer would open for one task what it has found of another's.
    if not session or said.session != session:
        raise ConnectionInvalid("The token that this task was deferred with is another task's.")
    return said
