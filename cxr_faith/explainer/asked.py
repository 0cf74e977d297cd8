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

    def unusual_sides(self) -> dict[str, str]:
        """Pictures whose header says that their columns do not run to the patient's left → the direction it states.

        Figures mark the patient's sides as they are usually shown: the right one on the left.

        Raises:
            ImageError: one of them cannot be read.
        """
        stated = {name: read_header(file).get("PatientOrientation", "") for name, file in self.files.items()}
        directions = {name: "".join(filter(str.isalpha, text.split(",")[0])) for name, text in stated.items()}
        return {name: to for name, to in directions.items() if to and not to.startswith("L")}

    def read(self) -> Shown:
        """The pictures of the files.

        Raises:
            ImageError: one of them cannot be read.
        """
        read = {name: load_image(file, window=self.options.window_values) for name, file in self.files.items()}
        return dict(read) if len(read) > 1 else next(iter(read.values()))
