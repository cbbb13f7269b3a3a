"""Hooks of mkdocs: the version of the package, pages made of files beside docs/, and the reference of the commands."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[1]
BESIDE = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site that are files at the root."""
SHIM, OWN_SHIM = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"
"""A script that mkdocs-material asks a server for, and the copy of it in docs/."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Show the version of the package beside the name of the site."""
    config.site_name = f"cliplens {version()}"
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    for name, source in BESIDE.items():
        files.append(File.generated(config, name, content=from_root((ROOT / source).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links to files at the root to their pages."""
    return outward(markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Take the script with which the search works from disk from the site itself."""
    return output.replace(SHIM, get_relative_url(OWN_SHIM, page.url))


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """Do the same for the pages of the theme, such as 404.html."""
    return output_content.replace(SHIM, get_relative_url(OWN_SHIM, template_name))


def version() -> str:
    """Return the version of the package, read from its file."""
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "src/cliplens/__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def from_root(text: str) -> str:
    """Return a page of the root with links as a page of docs/ writes them."""
    return outward(re.sub(r"\]\((?!https?:|#)([^)]+)\)", lambda m: f"](../{m[1]})", text))


def outward(text: str) -> str:
    """Point links that leave docs/ to pages of the site; of a link to anything else, keep the words."""

    def link(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        path, _, anchor = target.partition("#")
        own = {f"../{source}": name for name, source in BESIDE.items()}
        if path in own:
            return f"[{words}]({own[path]}{'#' + anchor if anchor else ''})"
        if path.startswith("../docs/"):
            return f"[{words}]({target.removeprefix('../docs/')})"
        return words if path.startswith("../") else match[0]

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", link, text)


def commands() -> str:
    """Return a page with every command: its help and its options."""
    from typer import Context
    from typer.core import TyperGroup
    from typer.main import get_command

    from cliplens.cli import app

    group = get_command(app)
    assert isinstance(group, TyperGroup)
    parts = ["# Commands\n\n`cliplens COMMAND --help` prints the same."]
    context = Context(group, info_name="cliplens")
    for name in group.list_commands(context):
        parts += section(group.get_command(context, name), f"cliplens {name}", 2)
    return "\n\n".join(parts) + "\n"


def section(command: Any, name: str, level: int) -> list[str]:
    """Return the help of a command and a table of its options; those of its subcommands after it."""
    parts = [f"{'#' * level} {name}", paragraphs(command.help or "")]
    rows = [row(option) for option in command.params if option.name != "help" and not getattr(option, "hidden", False)]
    if rows:
        parts.append("| option | default | |\n|---|---|---|\n" + "\n".join(rows))
    for inner, sub in getattr(command, "commands", {}).items():
        parts += section(sub, f"{name} {inner}", level + 1)
    return parts


def paragraphs(text: str) -> str:
    """Return the help as Markdown, its example as code."""
    plain = re.sub(r"\[/?bold\]|\f", "", text).strip()
    return re.sub(r"^(\s*)Example: (.+)$", r"Example:\n\n    \2", plain, flags=re.MULTILINE)


def row(option: Any) -> str:
    """Return the row of an option or argument."""
    typed = option.opts if option.param_type_name == "option" else [option.name.upper()]
    names = ", ".join(f"`{name}`" for name in typed)
    default = "required" if option.required else shown(option.default)
    text = " ".join(str(getattr(option, "help", "") or "").split())
    return f"| {names} | {default} | {escaped(text)} |"


def shown(default: Any) -> str:
    """Return a default as it is typed; empty where there is none."""
    return "" if default in (None, False, ()) or callable(default) else f"`{default}`"


def escaped(text: str) -> str:
    """Return a cell in which nothing is taken for a table or for HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")
