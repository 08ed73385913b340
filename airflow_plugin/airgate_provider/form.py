"""The connection form of Airflow 2.11, made of wtforms' fields. Airflow 3 reads it from the provider's info."""

from __future__ import annotations

from typing import Any

from airgate_provider.fields import FIELDS
from airgate_provider.fields import behaviour as _behaviour


def behaviour() -> dict[str, Any]:
    """What the form does to the standard fields, as a hook class says it."""
    return {name.replace("-", "_"): value for name, value in _behaviour().items()}


def widgets() -> dict[str, Any]:
    """One widget for each field. wtforms and Flask-AppBuilder are there wherever this form is shown."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, StringField
    from wtforms.validators import Optional, any_of

    made: dict[str, Any] = {}
    for field in FIELDS:
        label = lazy_gettext(field.label)
        if field.kind == "switch":
            made[field.name] = BooleanField(label, description=field.description, default=False)
            continue
        validators = [Optional()]
        if field.kind == "choice":
            validators.append(any_of(list(field.choices)))
        made[field.name] = StringField(
            label,
            widget=BS3TextFieldWidget(),
            validators=validators,
            description=field.description,
            default=field.choices[0] if field.choices else None,
        )
    return made
