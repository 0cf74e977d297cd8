"""How pages are made from their templates; all of them escape what comes from a run's data."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from cxr_faith.printable import page_text


def templates(package: str = "cxr_faith.report") -> Environment:
    """The templates of a package: texts are escaped and printable, and a name that is not given is an error."""
    return Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        finalize=page_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
