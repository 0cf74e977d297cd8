"""The page of `cxr-faith app`: drop a film, ask, choose methods, see what the answer depends on."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from cxr_faith.app.film_answer import MOST_METHODS, Film, FilmAnswer, FilmError, FilmRoom, Question, read_film
from cxr_faith.app.film_downloads import Downloads
from cxr_faith.app.film_view import FilmView, file_stem
from cxr_faith.records.controls import is_control

FONTS = ("system-ui", "sans-serif")
FIXED_FONTS = ("ui-monospace", "monospace")
FIRST_METHODS = ("chefer", "attention")
_LEFTOVERS = 60  # seconds after which a file that no answer took is deleted

_log = logging.getLogger(__name__)


def theme() -> gr.themes.Base:
    """Colors of the report page and fonts of the reader's machine: nothing is loaded from elsewhere."""
    blue, gray = gr.themes.colors.blue, gr.themes.colors.slate
    return gr.themes.Base(
        primary_hue=blue, secondary_hue=blue, neutral_hue=gray, radius_size="sm", font=FONTS, font_mono=FIXED_FONTS
    )


class FilmPage:
    """The page and what its buttons do.

    Args:
        room: answers about films.
        model: name of the model, for the head of the page.
        note: what a user must know of the model; empty: nothing.

    Attributes:
        downloads: the files that answers offer.
    """

    def __init__(self, room: FilmRoom, model: str, note: str = "") -> None:
        self._room, self._model, self._note, self._view = room, model, note, FilmView()
        self.downloads = Downloads()

    def blocks(self) -> gr.Blocks:
        """The page for gradio."""
        page = gr.Blocks(
            title="cxr-faith", analytics_enabled=False, delete_cache=(_LEFTOVERS, _LEFTOVERS), fill_width=True
        )
        with page:
            gr.HTML(self._head(), elem_id="head")
            film = gr.State(None)
            with gr.Row(elem_id="columns"):
                with gr.Column(scale=0, min_width=300, elem_id="ask"):
                    drop = gr.File(label="Film", show_label=False, elem_id="drop")
                    shown = gr.HTML(elem_id="film")
                    question = gr.Textbox(
                        label="Question", placeholder="Is there a nodule?", lines=2, max_lines=5, elem_id="question"
                    )
                    methods = gr.Dropdown(
                        self._choices(),
                        value=[name for name in FIRST_METHODS if name in self._room.methods],
                        multiselect=True,
                        max_choices=MOST_METHODS,
                        label=f"Methods, up to {MOST_METHODS}",
                        elem_id="methods",
                    )
                    judge = gr.Checkbox(True, label="Verdict: compare with 20 random orders", elem_id="judge")
                    tokens = gr.Checkbox(False, label="Also a map for each word of the answer", elem_id="tokens")
                    button = gr.Button("Explain the answer", variant="primary", elem_id="explain")
                with gr.Column(scale=1, min_width=300, elem_id="answer"):
                    result = gr.HTML(self._view.empty(), elem_id="result")
            private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "model"}
            drop.upload(self.drop, [drop], [drop, film, shown, result], show_progress="hidden", **private)
            asked = [film, question, methods, judge, tokens]
            for start in (button.click, question.submit):
                start(self.explain, asked, [result], show_progress_on=[result], **private)
        return page

    def drop(self, path: str | None) -> tuple[None, Film | None, str, str]:
        """Take a dropped film into memory and delete its file.

        Returns:
            nothing for the file, the film, how it is shown, and what stands in the place of the answer.
        """
        if path is None:
            return None, None, "", self._view.empty()
        file = Path(path)
        try:
            content = file.read_bytes()
        finally:
            shutil.rmtree(file.parent, ignore_errors=True)  # gradio gives each file a folder of its own
        try:
            film = read_film(content, file.name)
            return None, film, self._view.film(film), self._view.empty()
        except FilmError as error:
            return None, None, "", self._view.error(str(error))
        except Exception as error:
            return None, None, "", self._failed(error)

    def explain(
        self,
        film: Film | None,
        question: str,
        methods: list[str],
        judge: bool,
        tokens: bool,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio finds it by its default
    ) -> Iterator[str]:
        """Nothing while the model works, then the answer about a film as HTML, or a line that says what is wrong."""
        yield ""
        try:
            answer = self._room.ask(film, Question(question or "", tuple(methods or ()), judge, tokens), progress)
            assert film is not None
            yield self._view.answer(film, answer, self._offered(film, answer))
        except FilmError as error:
            yield self._view.error(str(error))
        except Exception as error:
            yield self._failed(error)

    def _offered(self, film: Film, answer: FilmAnswer) -> str | None:
        if answer.objects is None:
            return None
        return self.downloads.offer(f"{file_stem(film, answer)}.zip", answer.objects)

    def _failed(self, error: Exception) -> str:
        """What the page says of a fault of the program; the terminal gets the traceback."""
        _log.error("an answer failed", exc_info=error)
        if "memory" in type(error).__name__.lower():
            return self._view.error("The memory is not enough. Choose fewer methods, or start with a smaller model.")
        return self._view.error("This failed inside the program. The terminal that runs it says why.")

    def _head(self) -> str:
        note = f'<p class="note">{self._note}</p>' if self._note else ""
        return (
            f'<header><b>cxr-faith</b><span>{self._model}</span><span class="quiet">research output, not for '
            f"diagnosis · nothing leaves this machine</span></header>{note}"
        )

    def _choices(self) -> list[tuple[str, str]]:
        return [(f"{name} (control)" if is_control(name) else name, name) for name in self._room.methods]


def page_files() -> dict[str, str]:
    """Style and script of the page, as gradio takes them."""
    style, script = (Path(__file__).with_name(f"film.{ending}").read_text(encoding="utf-8") for ending in ("css", "js"))
    return {"css": style, "head": f"<script>{script}</script>"}
