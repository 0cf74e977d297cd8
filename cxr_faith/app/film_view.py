"""What a user sees of a film and of an answer about it, as HTML that holds every picture itself.

So the program keeps no file that a browser could ask for; DICOM objects, which are large, are made when asked for.
"""

import re
from base64 import b64encode
from pathlib import Path

from markupsafe import Markup, escape

from cxr_faith.app.film_answer import Film, FilmAnswer, jpeg
from cxr_faith.printable import printable
from cxr_faith.report.film import MOVING_SHARES
from cxr_faith.report.panel import SHARE
from cxr_faith.report.templates import templates
from cxr_faith.summary.verdict import BELIEVE, WEAK

DOWNLOADS = (
    ("png", "Figure, PNG", "image/png"),
    ("pdf", "Figure, PDF", "application/pdf"),
    ("json", "Numbers, JSON", "application/json"),
)
"""Ending, label and media type of the files that `FilmAnswer` may have."""

_LOOKS = {BELIEVE: "believe", WEAK: "weak"}
"""Verdict → how its line looks; any other one says that the map is not to be believed."""


def file_stem(film: Film, answer: FilmAnswer) -> str:
    """What the names of an answer's files begin with."""
    return re.sub(r"[^\w-]", "_", f"{Path(film.name).stem}-{'-'.join(answer.films)}")[:80]


class FilmView:
    """Makes the parts of the page that change."""

    def __init__(self) -> None:
        environment = templates("cxr_faith.app")
        environment.filters["base64"] = lambda content: Markup(b64encode(content).decode())
        self._answer = environment.get_template("film_answer.html.j2")

    def answer(self, film: Film, answer: FilmAnswer, objects: str | None = None) -> str:
        """The answer with its verdicts, figure, films and downloads.

        Args:
            film: what was asked about.
            answer: what is shown.
            objects: address of its DICOM objects, if there are any.
        """
        first = answer.explanations[0]
        verdicts = [(one.method, one.verdict) for one in answer.explanations]
        return self._answer.render(
            question=str(first.metadata["question"]),
            said=first.answer,
            p_yes=first.metadata["p_yes"],
            verdicts=[(name, _LOOKS.get(of.verdict, "doubt"), of.sentence) for name, of in verdicts if of is not None],
            files=answer.files,
            downloads=[entry for entry in DOWNLOADS if entry[0] in answer.files],
            stem=file_stem(film, answer),
            objects=objects,
            films=[(name, [(jpeg(one.picture), one.said) for one in frames]) for name, frames in answer.films.items()],
            shares=[frame.name for frame in next(iter(answer.films.values()))],
            steps=len(MOVING_SHARES) - 1,
            start=MOVING_SHARES.index(SHARE),
            token_maps=answer.token_maps,
        )

    def film(self, film: Film) -> str:
        """The picture that was dropped, with its name and size."""
        height, width = film.picture.shape[:2]
        shown, name = b64encode(jpeg(film.picture)).decode(), escape(film.name)
        return (
            f'<figure class="dropped"><img alt="The film {name}" src="data:image/jpeg;base64,{shown}">'
            f"<figcaption><b>{name}</b> {width:,} × {height:,}</figcaption></figure>"
        )

    def error(self, message: str) -> str:
        """One line that says what to do."""
        return f'<p class="error" role="alert">{escape(printable(message))}</p>'

    def empty(self) -> str:
        """What stands in the place of an answer before the first one."""
        return (
            '<div class="empty"><p>Drop a film, ask a question about it, and see which parts of the film the answer '
            "depends on: each method's map, the answer without the cells that the map ranks first, and a verdict "
            "against random orders.</p></div>"
        )
