"""Which pictures `cxr-faith explain` shows: one, a prior and a current study, or slices of a series."""

from dataclasses import dataclass
from pathlib import Path

from cxr_faith.data.images import load_image, read_header
from cxr_faith.data.slices import slice_files
from cxr_faith.explainer.options import ExplainOptions
from cxr_faith.explainer.pictures import Shown


@dataclass(frozen=True)
class Asked:
    """What the question shows.

    Attributes:
        image: path of the picture, or of the folder of a series.
        files: name → path of each picture, in the order in which the model gets them.
        options: what to ask about them.
    """

    image: str
    files: dict[str, Path]
    options: ExplainOptions

    @classmethod
    def of(cls, image: str | None, options: ExplainOptions) -> "Asked":
        """The pictures that the options name.

        Raises:
            ValueError: there is no slice, or a header is damaged.
        """
        if options.slices is not None:
            files = slice_files(options.slices, options.n_slices)
            return cls(options.slices, {file.name: file for file in files}, options)
        assert image is not None
        if options.prior is not None:
            return cls(image, {"prior": Path(options.prior), "current": Path(image)}, options)
        return cls(image, {Path(image).name: Path(image)}, options)

    @property
    def image_id(self) -> str:
        """Seeds everything random."""
        return "+".join(file.name for file in self.files.values())

    def cautions(self) -> list[str]:
        """Says of each picture whose header states another view that the sides in figures and words are wrong.

        They are those of the usual view: columns run to the patient's left, so the right side is on the left.

        Raises:
            ImageError: a picture cannot be read.
        """
        said = []
        for name, file in self.files.items():
            stated = read_header(file).get("PatientOrientation", "")
            direction = "".join(filter(str.isalpha, stated.split(",")[0]))
            if direction and not direction.startswith("L"):
                seen = "is seen from the side" if direction[0] in "AP" else "is mirrored or turned"
                said.append(f"{name} {seen} (its columns run to {direction}): R, L, right and left are not its sides.")
        return said

    def read(self) -> Shown:
        """The pictures of the files.

        Raises:
            ImageError: one of them cannot be read.
        """
        read = {name: load_image(file, window=self.options.window_values) for name, file in self.files.items()}
        return dict(read) if len(read) > 1 else next(iter(read.values()))
