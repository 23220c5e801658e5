"""The SQLAlchemy metadata of the API's own tables. The features define the tables, and `migrations/` creates them."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})
