"""All that can be set: default, unit and meaning in one place. Only `wiring` and the doors read it.

Order of precedence: flag, environment, `./dujiang.toml`, `$DUJIANG_HOME/dujiang.toml`.
"""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from dujiang.domain.accounts import Account, Key, shared_keys
from dujiang.domain.errors import DujiangError
from dujiang.domain.limits import FixedLimit

FILE_NAME = "dujiang.toml"


class SettingsInvalid(DujiangError):
    """A setting can't be read; `problems` are (setting, what is wrong), `where` the file if it was one."""

    code = "settings_invalid"

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in problems))
        self.problems = problems


class KeySettings(BaseModel):
    """One key of an account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access_key: SecretStr
    secret_key: SecretStr
    session_token: SecretStr | None = None


class AccountSettings(BaseModel):
    """An account: its name and one key, or several under `keys`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    keys: tuple[KeySettings, ...] = ()
    models: tuple[str, ...] = ()
    concurrency: str | None = None

    @field_validator("concurrency")
    @classmethod
    def _limit(cls, value: str | None) -> str | None:
        return value if value is None else str(parsed_limit(value))

    def account(self) -> Account:
        """As the domain knows it."""
        own = (
            [KeySettings(access_key=self.access_key, secret_key=self.secret_key, session_token=self.session_token)]
            if (self.access_key and self.secret_key)
            else []
        )
        keys = tuple(
            Key(
                key.access_key.get_secret_value().strip(),
                key.secret_key.get_secret_value().strip(),
                key.session_token.get_secret_value().strip() if key.session_token else None,
            )
            for key in (*own, *self.keys)
        )
        return Account(self.name, keys, self.models, self.concurrency)


def parsed_limit(text: str) -> FixedLimit:
    """`fixed:N`; ValueError with what to write otherwise."""
    try:
        return FixedLimit.parse(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a limit; write fixed:N with N from 1 to 10000, as in fixed:3") from None


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="DUJIANG_",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )
    toml_files: ClassVar[tuple[Path, ...]] = ()

    home: Path = Path("~/.dujiang")
    """Folder of the database, lock files and logs."""

    database_url: str | None = None
    """Where tasks live: `sqlite:///PATH`. Default: `dujiang.db` in the home folder."""

    jimeng_endpoint: str = "https://visual.volcengineapi.com"
    """The vendor's address. Without https only on this machine (the simulator)."""

    concurrency: str = "fixed:3"
    """How many jobs a lane may hold at once: `fixed:N`."""

    time_scale: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Scales every constant in seconds of ours, so that a run can be rehearsed fast against the simulator."""

    jimeng_retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Tries after a fault of the way before the endpoint rests."""

    jimeng_backoff: Annotated[float, Field(gt=0, le=3600)] = 2.0
    """First wait between such tries, in seconds; doubles."""

    jimeng_backoff_max: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Longest wait between such tries, in seconds."""

    connect_timeout: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds to reach the vendor."""

    submit_timeout: Annotated[float, Field(gt=0, le=600)] = 60.0
    """Seconds in which the answer to a submit must be complete; after that the task is in doubt."""

    poll_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds in which the answer to a poll must come."""

    download_timeout: Annotated[float, Field(gt=0, le=600)] = 60.0
    """Seconds without a byte after which a download is started again."""

    queries_a_second: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Polls a second of one account, at most."""

    downloads_at_once: Annotated[int, Field(ge=1, le=64)] = 8
    """Pictures downloaded at the same time."""

    lang: str | None = None
    """Language of everything a person reads: `zh` or `en`. Default: the system's."""

    accounts: Annotated[tuple[AccountSettings, ...], NoDecode] = ()
    """`[[accounts]]` in dujiang.toml, or JSON: `[{"name":"a","access_key":"…","secret_key":"…"}]`."""

    volcengine_access_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("VOLCENGINE_ACCESS_KEY", "volcengine_access_key")
    )
    """Access key of the account `default`, where no other accounts are set."""

    volcengine_secret_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("VOLCENGINE_SECRET_KEY", "volcengine_secret_key")
    )
    """Secret key that belongs to it."""

    @field_validator("accounts", mode="before")
    @classmethod
    def _accounts_json(cls, value: Any) -> Any:
        if isinstance(value, str):
            import json  # noqa: PLC0415

            try:
                return json.loads(value)
            except json.JSONDecodeError as error:
                # Never the text itself: it holds secrets.
                raise ValueError(f"not valid JSON at character {error.pos}") from None
        return value

    @field_validator("concurrency")
    @classmethod
    def _limit(cls, value: str) -> str:
        return str(parsed_limit(value))

    @field_validator("lang")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        if value is not None and value not in {"zh", "en"}:
            raise ValueError("write zh or en")
        return value

    @property
    def home_folder(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().absolute()

    @property
    def database(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.home_folder / 'dujiang.db'}"

    def configured_accounts(self) -> list[Account]:
        """The accounts; empty if there are no keys. Raises `SettingsInvalid` for keys used twice or missing."""
        found = [entry.account() for entry in self.accounts]
        if not found and self.volcengine_access_key and self.volcengine_secret_key:
            key = Key(
                self.volcengine_access_key.get_secret_value().strip(),
                self.volcengine_secret_key.get_secret_value().strip(),
            )
            found = [Account("default", (key,))]
        problems = [
            ("accounts", f"{one!r} and {other!r} have the same access key; remove one")
            for one, other in shared_keys(found)
        ]
        problems += [("accounts", f"{account.name!r} has no key") for account in found if not account.keys]
        if problems:
            raise SettingsInvalid(problems)
        return found

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flag, environment, `./dujiang.toml`, the home folder's `dujiang.toml`."""
        home = Path(os.environ.get("DUJIANG_HOME") or "~/.dujiang").expanduser()
        files = [TomlConfigSettingsSource(settings_cls, path) for path in (Path(FILE_NAME), home / FILE_NAME)]
        return (init_settings, env_settings, *files)


def load(**flags: object) -> Settings:
    """The settings in force. `flags` that are None were not given.

    Raises `SettingsInvalid`, which never shows a value: it may be a secret.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = [
            (".".join(str(part) for part in issue["loc"]), issue["msg"])
            for issue in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        raise SettingsInvalid(problems) from None
    except (OSError, ValueError) as error:
        raise SettingsInvalid([(FILE_NAME, str(error))]) from None
