"""Which pictures `cxr-faith explain` shows: one, a prior and a current study, or slices of a series."""

from dataclasses import dataclass
from pathlib import Path

from cxr_faith.data.images import read_header
from cxr_faith.data.orientation import MIRRORED, OTHER, columns_run_to, orientation_of
from cxr_faith.data.slices import slice_files
from cxr_faith.explainer.options import ExplainOptions
from cxr_faith.explainer.pictures import Oriented, Shown, read_oriented


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
        """Says of each picture whose header states another view than the usual one what that means for its sides.

        Raises:
            ImageError: a picture cannot be read.
        """
        said = []
        for name, file in self.files.items():
            header = read_header(file)
            orientation, runs = orientation_of(header), columns_run_to(header)
            to = f" (its columns run to {runs})" if runs else ""
            if orientation == MIRRORED:
                said.append(f"{name} is mirrored{to}: R and L are drawn for that, and the model sees it as it is.")
            elif orientation == OTHER:
                said.append(f"{name} is a lateral or turned picture{to}: its sides are neither marked nor named.")
        return said

    def read_pair(self) -> Oriented | None:
        """The picture without the finding; None if none is given.

        Raises:
            ImageError: it cannot be read.
        """
        pair = self.options.pair
        return None if pair is None else read_oriented(pair, window=self.options.window_values)

    def read(self) -> Shown:
        """The pictures of the files.

        Raises:
            ImageError: one of them cannot be read.
        """
        window = self.options.window_values
        read = {name: read_oriented(file, window=window) for name, file in self.files.items()}
        return dict(read) if len(read) > 1 else next(iter(read.values()))
