"""All that can be set: default, unit and meaning in one place. Only `wiring` and the doors read it.

Order of precedence: flag, environment, `./dujiang.toml`, `$DUJIANG_HOME/dujiang.toml`.
"""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from dujiang.domain.accounts import Account, Key, shared_keys
from dujiang.domain.errors import DujiangError
from dujiang.domain.limits import Limit, parse_limit
from dujiang.messages import text
from dujiang.storage import keyring_entries

FILE_NAME = "dujiang.toml"
DEFAULT_ACCOUNT: Final = "default"


class SettingsInvalid(DujiangError):
    """A setting can't be read; `problems` are (setting and where it was set, what is wrong). Never holds a value."""

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
    daily_images: Annotated[int, Field(ge=1)] | None = None

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
                revealed(key.access_key),
                revealed(key.secret_key),
                revealed(key.session_token) if key.session_token else None,
            )
            for key in (*own, *self.keys)
        )
        return Account(self.name, keys, self.models, self.concurrency, self.daily_images)


def revealed(secret: SecretStr) -> str:
    """What was set, or what the system's keyring holds under it. Raises `KeyringRefused`."""
    word = secret.get_secret_value().strip()
    return keyring_entries.fetch(word) if word.startswith(keyring_entries.PREFIX) else word


def parsed_limit(words: str) -> Limit:
    """`auto`, `auto:LOW..HIGH`, `quiet`, `eager` or `fixed:N`; ValueError with what to write otherwise."""
    try:
        return parse_limit(words.strip())
    except ValueError:
        raise ValueError(text("setting_limit")) from None


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
    home: Path = Path("~/.dujiang")
    """Folder of the database, lock files and logs."""

    database_url: str | None = None
    """Where tasks live: `sqlite:///PATH` or `postgresql://…`. Default: `dujiang.db` in the home folder."""

    jimeng_endpoint: str = "https://visual.volcengineapi.com"
    """The vendor's address. Without https only on this machine (the simulator)."""

    superbed_endpoint: str = "https://api.superbed.cn"
    """Address of the image host that publishes references from files. Without https only on this machine."""

    superbed_token: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("SUPERBED_TOKEN", "superbed_token")
    )
    """Token of the image host's account; without it references must be public addresses."""

    image_host: Literal["auto", "superbed", "inline"] = "auto"
    """Who publishes references from files: `superbed`, `inline` (they go into the request, where the model takes that),
    or `auto`: superbed where there is a token, else inline."""

    uploads_at_once: Annotated[int, Field(ge=1, le=100)] = 3
    """Pictures uploaded at the same time, of all programs together."""

    prepare_ahead: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Tasks of a model whose references are published before there is a slot for them."""

    reference_good_for: Annotated[float, Field(gt=0, le=2_592_000)] = 3600.0
    """Seconds for which an uploaded picture's link is used without a look at it."""

    concurrency: str = "auto"
    """How many jobs a lane may hold at once: `auto`, `auto:LOW..HIGH`, `quiet`, `eager` or `fixed:N`."""

    lease: Annotated[float, Field(ge=5, le=3600)] = 30.0
    """Seconds of silence after which a worker counts as gone, and its tasks are taken over."""

    max_jobs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Jobs at the vendor that one program may hold at once. Default: as many as there are slots."""

    worker_name: str | None = None
    """What `dujiang workers list` calls this program. Default: the machine's name and the process id."""

    priority_ageing: Annotated[float, Field(ge=0, le=86_400)] = 300.0
    """Seconds that a batch waits without a single slot for each point of priority that it gains; 0: never."""

    time_scale: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Scales every constant in seconds of ours, so that a run can be rehearsed fast against the simulator."""

    jimeng_retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Tries after a fault of the way before the endpoint rests."""

    jimeng_backoff: Annotated[float, Field(gt=0, le=3600)] = 2.0
    """First wait between such tries, in seconds; doubles."""

    jimeng_backoff_max: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Longest wait between such tries, in seconds."""

    superbed_retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Further tries of an upload before the image host rests."""

    superbed_backoff: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """First wait between tries of an upload, in seconds; doubles."""

    superbed_backoff_max: Annotated[float, Field(gt=0, le=3600)] = 5.0
    """Longest wait between tries of an upload, in seconds."""

    connect_timeout: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds to reach the vendor."""

    submit_timeout: Annotated[float, Field(gt=0, le=600)] = 60.0
    """Seconds in which the answer to a submit must be complete; after that the task is in doubt."""

    poll_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds in which the answer to a poll must come."""

    download_timeout: Annotated[float, Field(gt=0, le=600)] = 60.0
    """Seconds without a byte after which a download is started again."""

    upload_timeout: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Seconds in which an upload must be answered."""

    queries_a_second: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Polls a second of one account, at most."""

    downloads_at_once: Annotated[int, Field(ge=1, le=64)] = 8
    """Pictures downloaded at the same time."""

    log_file: Path | None = None
    """Where the log is written. Default: `logs/app.log` in the home folder."""

    log_level: Literal["debug", "info", "warning"] = "info"
    """How much is logged: `debug` tells every look at a job."""

    log_json: bool = False
    """Log lines are JSON objects, for programs."""

    log_prompts: bool = False
    """Prompts stand in the log as they are; otherwise only their hash does."""

    allow_sleep: bool = False
    """Whether the machine may fall asleep while `run` works (Windows and macOS)."""

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
                raise ValueError(text("setting_json", position=error.pos)) from None
        return value

    @field_validator("concurrency")
    @classmethod
    def _limit(cls, value: str) -> str:
        return str(parsed_limit(value))

    @field_validator("database_url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError(text("setting_database"))
        return value

    @field_validator("lang")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        if value is not None and value not in {"zh", "en"}:
            raise ValueError(text("setting_lang"))
        return value

    @property
    def home_folder(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().absolute()

    @property
    def database(self) -> str:
        """The database's address."""
        return self.database_url or f"sqlite:///{self.home_folder / 'dujiang.db'}"

    @property
    def log_path(self) -> Path:
        """Where the log is written."""
        return self.log_file.expanduser().absolute() if self.log_file else self.home_folder / "logs" / "app.log"

    def secrets(self) -> list[str]:
        """Everything that must never be shown. Raises `KeyringRefused`."""
        keys = [key for account in self.configured_accounts() for key in account.keys]
        found = [word for key in keys for word in (key.access, key.secret, key.session_token)]
        return [word for word in (*found, self.configured_superbed_token()) if word]

    @property
    def shown_database(self) -> str:
        """The same without a password."""
        return re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", self.database)

    def configured_accounts(self) -> list[Account]:
        """The accounts; empty if there are no keys.

        Raises `SettingsInvalid` for keys used twice or missing, `KeyringRefused` for those that the keyring keeps back.
        """
        return list(self._accounts_in_force)

    @cached_property  # a keyring may ask its owner each time
    def _accounts_in_force(self) -> Sequence[Account]:
        found = [entry.account() for entry in self.accounts]
        if not found and self.volcengine_access_key and self.volcengine_secret_key:
            key = Key(revealed(self.volcengine_access_key), revealed(self.volcengine_secret_key))
            found = [Account(DEFAULT_ACCOUNT, (key,))]
        problems = [("accounts", text("setting_key_twice", one=one, other=other)) for one, other in shared_keys(found)]
        problems += [
            ("accounts", text("setting_no_key", account=account.name)) for account in found if not account.keys
        ]
        names = Counter(account.name for account in found)
        problems += [("accounts", text("setting_name_twice", account=name)) for name in names if names[name] > 1]
        if problems:
            raise SettingsInvalid(problems)
        return found

    def configured_superbed_token(self) -> str | None:
        """The token of the image host. Raises `KeyringRefused`."""
        return revealed(self.superbed_token) if self.superbed_token else None

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
        files = [path for path in files_of(init_settings().get("home")) if _read(path)]
        return (init_settings, env_settings, *(TomlConfigSettingsSource(settings_cls, path) for path in files))


def files_of(home: object = None) -> tuple[Path, Path]:
    """Where settings may stand: here, and in the home folder. `home`: what a flag says that it is."""
    here = Path(FILE_NAME)
    chosen = home or os.environ.get("DUJIANG_HOME") or _read(here).get("home") or "~/.dujiang"
    return here, Path(str(chosen)).expanduser() / FILE_NAME


def set_ahead(home: object, fields: Sequence[str]) -> list[str]:
    """Variables and files that set one of `fields` and come before the home folder's file."""
    variables = [environment_name(field, Settings.model_fields[field]) for field in fields]
    here, at_home = (path.absolute() for path in files_of(home))
    files = [here] if here.resolve() != at_home.resolve() and not _read(here).keys().isdisjoint(fields) else []
    return [name for name in variables if os.environ.get(name)] + [str(path) for path in files]


def load(**flags: object) -> Settings:
    """The settings in force. `flags` that are None were not given.

    Raises `SettingsInvalid`, which never shows a value: it may be a secret.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        issues = error.errors(include_input=False, include_url=False)
        raise SettingsInvalid([(_place(issue["loc"], given), _reason(issue)) for issue in issues]) from None


def _read(path: Path) -> Mapping[str, Any]:
    """What a file sets; nothing if there is none. Raises `SettingsInvalid`, as it is read before all others."""
    try:
        return tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsInvalid([(str(path.absolute()), text("setting_toml", reason=error))]) from None
    except UnicodeDecodeError:
        raise SettingsInvalid([(str(path.absolute()), text("setting_encoding"))]) from None
    except OSError as error:
        raise SettingsInvalid([(str(path.absolute()), error.strerror or type(error).__name__)]) from None


def _place(where: tuple[int | str, ...], given: Mapping[str, object]) -> str:
    """The setting, and where it was set: what has to be mended."""
    name = ".".join(str(part) for part in where)
    field = str(where[0]) if where else ""
    if field in given:
        return name
    variable = environment_name(field, Settings.model_fields[field]) if field in Settings.model_fields else ""
    if os.environ.get(variable):
        return variable if name == field else f"{variable} ({name})"
    files = [path for path in files_of(given.get("home")) if field in _read(path)]
    return f"{files[0].absolute()}: {name}" if files else name


_REASONS: Final[Mapping[str, str]] = {
    "extra_forbidden": "setting_unknown_here",
    "missing": "setting_missing",
    "greater_than": "setting_above",
    "greater_than_equal": "setting_at_least",
    "less_than_equal": "setting_at_most",
    "float_parsing": "setting_number",
    "float_type": "setting_number",
    "int_parsing": "setting_whole",
    "int_type": "setting_whole",
    "int_from_float": "setting_whole",
    "string_type": "setting_text",
    "literal_error": "setting_choice",
    "bool_parsing": "setting_yes_no",
    "bool_type": "setting_yes_no",
}


def _reason(issue: Any) -> str:
    """What is wrong, in the language in force; never the value."""
    limits = [value for name, value in issue.get("ctx", {}).items() if name in {"gt", "ge", "le", "lt", "expected"}]
    if code := _REASONS.get(issue["type"]):
        return text(code, limit=limits[0] if limits else "")
    return str(issue["msg"]).removeprefix("Value error, ")


def environment_name(name: str, info: FieldInfo) -> str:
    """What the setting is called in the environment."""
    choices = getattr(info.validation_alias, "choices", None)
    return str(choices[0]) if choices else f"DUJIANG_{name.upper()}"
