"""What names of columns tell: whom they name, and whether they are names at all.

A log may come without a header, and then its first row stands where names
should; that row is somebody's, and is not for messages and logs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

MOST_SHOWN = 30
VALUE = re.compile(r"[\d.,:+\-TZ ]*\d[\d.,:+\-TZ ]*|.*@.*|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}")
# Columns of what finds a person, however few their rows are.
CONTACTS = frozenset(
    {
        "name", "first_name", "firstname", "given_name", "last_name", "lastname", "surname",
        "family_name", "full_name", "fullname", "user_name", "username", "login", "nickname",
        "email", "e-mail", "e_mail", "mail", "phone", "phone_number", "telephone", "mobile",
        "address", "street", "ip", "ip_address", "date_of_birth", "birth_date", "birthdate", "dob",
        "ssn", "passport",
    }
)  # fmt: skip
FEW = 5  # values; what has no more of them, such as a yes or a no, names nobody
CONTACT = r"(?i)^[^@\s]+@[^@\s]+\.[^@\s]+$|^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
OFTEN = 0.5  # share of values that look so


def shown(names: Sequence[str]) -> str:
    """Names of columns for a message; of a first row that is no header only that it is none."""
    if any(VALUE.fullmatch(name) for name in names):
        return f"{len(names)} fields that look like values: the first line must name the columns"
    more = ", ..." if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more


def finds_people(values: pl.Series) -> bool:
    """Whether a column (String) is named, or filled, with what finds a person."""
    known = values.drop_nulls()
    if known.is_empty():
        return False
    if values.name.strip().lower().replace(" ", "_") in CONTACTS and known.n_unique() > FEW:
        return True
    return int(known.str.contains(CONTACT).sum()) > OFTEN * len(known)
