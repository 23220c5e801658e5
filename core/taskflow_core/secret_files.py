"""Settings from files, so that a secret can change under a running process.

Kubernetes updates the files of a mounted Secret, and never the environment of a process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource, SettingsError

FOLDER = "TASKFLOW_SECRETS_DIR"
"""Variable that names the folder. A file in it has the name of the setting, such as `TASKFLOW_REDIS_URL`."""


class FileSecret(SecretStr):
    """A secret in a file, which is read each time that the secret is asked for.

    Args:
        path: of the file. Spaces and line breaks around the secret are no part of it.

    Raises:
        OSError: the file cannot be read, now or when the secret is asked for.
        ValueError: it is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(_read(path))

    def get_secret_value(self) -> str:
        """What is in the file now."""
        return _read(self._path)


class SecretFiles(PydanticBaseSettingsSource):
    """Reads the settings of a class from the files of the folder, if there is one."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """A secret that is read again, other text as it is now, and None without a file.

        Raises:
            SettingsError: the folder or the file cannot be read.
        """
        folder, name = os.environ.get(FOLDER), f"{self.config.get('env_prefix', '')}{field_name}".upper()
        kinds = _kinds(field.annotation)
        if not folder or not {SecretStr, str} & kinds:
            return None, field_name, False
        if not Path(folder).is_dir():
            raise SettingsError(f"{FOLDER}: expected a folder, found none")
        path = Path(folder, name)
        try:
            if not path.is_file():
                return None, field_name, False
            return FileSecret(path) if SecretStr in kinds else _read(path), field_name, False
        except OSError as error:
            raise SettingsError(f"{FOLDER}: {name}: {error.strerror}") from error
        except ValueError:
            raise SettingsError(f"{FOLDER}: {name}: expected UTF-8") from None

    def __call__(self) -> dict[str, Any]:
        """The values that the files have, by field."""
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                found[name] = value
        return found


def _kinds(annotation: Any) -> set[Any]:
    """The types in an annotation such as `SecretStr | None`."""
    return {annotation}.union(*map(_kinds, get_args(annotation))) if get_args(annotation) else {annotation}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()
