"""`cxr-faith app`: drop a film into a page, ask, and see what the answer depends on."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.files import check_model
from cxr_faith.cli.parser import Command
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports
from cxr_faith.cli.values import text_of

if TYPE_CHECKING:
    from cxr_faith.app.film_page import FilmPage

DESCRIPTION = """Explain answers about films in a browser: drop a PNG, JPEG or DICOM file, ask,
choose methods, and see the maps, the answer without the cells that each map
ranks first, and which map to believe.

Serves a page on 127.0.0.1 behind an address that holds a random token, until
Ctrl-C. Films are held in memory alone: no file is left, and nothing is sent
elsewhere. Needs the extra `app`: pip install "cxr-faith[app]"

examples:
  cxr-faith app
  cxr-faith app --model google/medgemma-4b-it --device cuda:0
  cxr-faith app --model models/medgemma-4b-it --port 8766
  cxr-faith app --host 0.0.0.0 --port 8766    # for other machines, too
"""
OPTIONS = [
    Option("model", "str", "'bundled'", "folder or hub id of a model; `bundled` is the small one, made for phantoms."),
    Option("revision", "str | None", "None", "branch, tag or commit of a hub id; default: main."),
    Option("device", "str | None", "None", "such as cuda:1; default: a GPU if there is one."),
    Option(
        "dtype",
        "Literal['float32', 'bfloat16'] | None",
        "None",
        "default: bfloat16 on a GPU, float32 on a CPU.",
    ),
    Option("prompt_template", "str | None", "None", "how the question is put to the model; contains {question}."),
    Option("host", "str", "'127.0.0.1'", "address to serve on; any other one shows the page to other machines."),
    Option("port", "int", "0", "port to serve on; 0 takes a free one."),
]
COMMAND = Command("app", DESCRIPTION, {"options": OPTIONS}, usage="[--model M]")
INSTALL = 'the app needs gradio: pip install "cxr-faith[app]"'


def main(arguments: list[str]) -> int:
    """Run the command until it is stopped; returns its exit status."""
    given = COMMAND.read(arguments)
    values = {key: text_of(given.values, key) for key in COMMAND.options}
    port, host = int(values["port"] or 0), values["host"] or "127.0.0.1"
    if not 0 <= port < 2**16:
        raise UsageError(f"--port {port}: must be between 0 and 65535")
    if find_spec("gradio") is None:
        raise UsageError(INSTALL)
    check_model(values["model"] or "bundled")
    from cxr_faith.app.film_server import HOST, FilmServer, listen, private_folder

    try:
        listener = listen(host, port)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror}") from error
    with listener, private_folder():
        server = FilmServer(_page(values), listener, host)
        if host != HOST:
            print("warning      others on the network can open this page with its address", flush=True)
        print(f"app          {server.address}\nCtrl-C ends it.", flush=True)
        server.serve_forever()
    return 0


def _page(values: dict[str, str | None]) -> "FilmPage":
    """The page of a model, which is loaded for it."""
    with quick_imports():
        from transformers.utils import logging as transformers_logging

        from cxr_faith.app.film_answer import FilmRoom
        from cxr_faith.app.film_page import FilmPage
        from cxr_faith.data.phantoms_only import PHANTOMS_ONLY
        from cxr_faith.explainer import Explainer
        from cxr_faith.vlm import bundled_model
        from cxr_faith.vlm.bundled_weights import has_bundled_weights

    transformers_logging.disable_progress_bar()
    model = values["model"] or "bundled"
    source = str(bundled_model()) if model == "bundled" else model
    with usage_errors(ValueError):
        explainer = Explainer.from_pretrained(
            source, values["device"], values["dtype"], values["prompt_template"], values["revision"]
        )
    is_bundled = has_bundled_weights(source)
    name = "bundled model" if is_bundled else "/".join(Path(source).parts[-2:])
    return FilmPage(FilmRoom(explainer), name, PHANTOMS_ONLY if is_bundled else "")
