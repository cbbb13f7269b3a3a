"""Find plugins through entry points. Errors name the plugin, its distribution and the cause."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from cliplens.errors import MissingExtraError, PluginError, unknown_name

T = TypeVar("T")
_LOG = logging.getLogger("cliplens")
FORMER_GROUPS = {"models": "towers"}
"""Group -> the group its plugins were registered in before it had its own."""


@dataclass(frozen=True)
class Plugin:
    """An entry point, not imported until `make` is called."""

    entry: EntryPoint

    @property
    def name(self) -> str:
        """The name of the entry point."""
        return self.entry.name

    @property
    def distribution(self) -> str:
        """The installed package that provides the plugin."""
        return self.entry.dist.name if self.entry.dist else "an unknown distribution"

    def load(self) -> Any:
        """Import and return the object the entry point names.

        Raises:
            MissingExtraError: it needs a package that is not installed.
            PluginError: the import failed.
        """
        try:
            return self.entry.load()
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                expected=f"the optional packages of {self.name!r} (from {self.distribution})",
                found=f"no module {error.name!r}",
                fix=f"install the extra that brings it, for example pip install '{self.distribution}[{self.name}]'",
            ) from error
        except Exception as error:
            raise self.failed("could not be imported", error) from error

    def make(self, contract: type[T] | tuple[type[T], ...]) -> T:
        """Return one instance, checked against its contract.

        Raises:
            PluginError: the class cannot be called without arguments, or the instance is not of the abstract class.
        """
        made = self.load()
        if isinstance(made, type):
            try:
                made = made()
            except Exception as error:
                raise self.failed("could not be made without arguments", error) from error
        if not isinstance(made, contract):
            wanted = " or ".join(k.__name__ for k in (contract if isinstance(contract, tuple) else (contract,)))
            raise PluginError(
                expected=f"{wanted} from the entry point {self.name!r} of {self.distribution}",
                found=f"{type(made).__module__}.{type(made).__qualname__}",
                fix="subclass the contract in cliplens.contracts, or remove the entry point",
            )
        return made

    def failed(self, what: str, error: Exception) -> PluginError:
        """Return an error that names this plugin and the cause."""
        return PluginError(
            expected=f"the plugin {self.name!r} of {self.distribution} to work",
            found=f"it {what}: {type(error).__name__}: {error}",
            fix=f"report it to the authors of {self.distribution}, or leave the plugin out",
        )


@cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """Return the plugins installed in a group, by name."""
    found = entry_points(group=f"cliplens.{group}")
    return tuple(Plugin(e) for e in sorted(found, key=lambda e: e.name))


def find(group: str, name: str) -> Plugin:
    """Return the plugin of that name.

    Raises:
        UnknownNameError: no plugin has that name; the message lists the nearest names.
    """
    by_name = {p.name: p for p in plugins(group)}
    if name not in by_name:
        raise unknown_name(f"plugin in cliplens.{group}", name, by_name)
    return by_name[name]


def judge(spec: str) -> Any:
    """Return the judge of a spec: the name of an entry point and, after a colon, the argument of its class.

    `sentences`, `timm:vit_small_patch14_dinov2|/path/model.safetensors`, `open_clip:local-dir:/path`, `file:/path.npz`.

    Raises:
        UnknownNameError: no judge has that name.
        PluginError: the class raised an error.
    """
    from cliplens.contracts import Judge

    kind, _, source = spec.partition(":")
    plugin = find("judges", kind)
    made_with = plugin.load()
    try:
        found = made_with(source) if source else made_with()
    except Exception as error:
        raise plugin.failed(f"could not be made from {source!r}", error) from error
    if not isinstance(found, Judge):
        raise plugin.failed("is no Judge", TypeError(type(found).__name__))
    return found


def made(group: str, contract: type[T]) -> Iterator[tuple[Plugin, T]]:
    """Yield every plugin of the group as an instance of `contract`.

    A plugin that fails is logged and skipped. A plugin with a missing optional package is skipped without a message.
    Plugins registered in the former group of this one still work, with a `DeprecationWarning`.
    """
    for plugin in plugins(group):
        instance = _tried(plugin, contract, group)
        if instance is not None:
            yield plugin, instance
    for plugin in plugins(FORMER_GROUPS.get(group, "")):
        if _belongs(plugin, contract):
            warnings.warn(
                f"the plugin {plugin.name!r} of {plugin.distribution} is registered in the entry-point group"
                f" cliplens.{FORMER_GROUPS[group]}; its group is cliplens.{group}",
                DeprecationWarning,
                stacklevel=2,
            )
            yield plugin, plugin.make(contract)


def _tried(plugin: Plugin, contract: type[T], group: str) -> T | None:
    try:
        return plugin.make(contract)
    except MissingExtraError as error:
        _LOG.debug("%s", error)
    except PluginError as error:
        if not _has_moved(plugin, group):
            _LOG.warning("%s", error)
    return None


def _has_moved(plugin: Plugin, group: str) -> bool:
    """Return whether the plugin belongs to a group whose plugins used to be registered in this one."""
    from cliplens.contracts import CONTRACTS

    return any(former == group and _belongs(plugin, CONTRACTS[now]) for now, former in FORMER_GROUPS.items())


def _belongs(plugin: Plugin, contract: type) -> bool:
    try:
        found = plugin.load()
    except PluginError:
        return False
    return issubclass(found, contract) if isinstance(found, type) else isinstance(found, contract)
