"""How pages are made from their templates; all of them escape what comes from a run's data."""

import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cxr_faith.printable import page_text, printable


def templates(package: str = "cxr_faith.report") -> Environment:
    """The templates of a package: texts are escaped and printable, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        finalize=page_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(name: str) -> Markup:
    """A name that a page may break after "_", "/" and "." rather than within a word."""
    return Markup("<wbr>").join(map(printable, re.split(r"(?<=[_/.])", name)))
