"""`cxr-faith prepare check`: open a manifest's pictures and masks and list the faults, or what two manifests share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cxr_faith.cli.errors import UsageError, usage_errors
from cxr_faith.cli.parser import Command, Given
from cxr_faith.cli.signatures import Option
from cxr_faith.cli.startup import quick_imports
from cxr_faith.storage.folders import moved_away

MANIFEST = "\n\nMANIFEST is a Parquet file, or a folder made by `cxr-faith prepare`.\n"
CHECK = Command(
    "prepare check",
    "Open a manifest's pictures and masks; list the faults, with exit status 1,\nand what prepare dropped.\n\n"
    "With --against, open every picture of two manifests; list the pictures and\npatients that are in both, with exit "
    "status 1, and patients of two splits." + MANIFEST,
    {
        "options": [
            Option("root", "str | None", "None", "data root; default: the one noted by `prepare`"),
            Option("images", "int | str", "200", "how many samples to open, or all"),
            Option("against", "str | None", "None", "another manifest, to list what both hold"),
            Option(
                "against_root", "str | None", "None", "data root of the other one; default: the one noted by `prepare`"
            ),
        ]
    },
    usage="MANIFEST [options]",
    positionals=("MANIFEST",),
)


def main(arguments: list[str]) -> int:
    """Run `prepare check`; returns the exit status."""
    given = read_manifest(CHECK, arguments)
    images = str(given.values.get("images", "200"))
    if images != "all" and not images.isdecimal():
        raise UsageError(f"--images must be a number or all, got {images!r}")
    if images != "all" and int(images) < 1:
        raise UsageError(f"--images must be at least 1 or all, got {images}")
    if given.values.get("against") is not None:
        return _against(given)
    with quick_imports():
        from cxr_faith.data.check import check_manifest, drops_of
        from cxr_faith.data.overlap import patients
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import print_line, wide_console

    console, root = wide_console(), given.values.get("root")
    with usage_errors(ValueError):
        chosen = None if images == "all" else int(images)
        state, faults = check_manifest(Path(given.positionals[0]), None if root is None else Path(root), chosen)
        with progress_bar(console, "check") as progress:
            for fault in faults:
                progress(state.done, state.chosen)
                if fault is not None:
                    print_line(console, f"{fault.sample_id}  {fault.error}")
    sizes = sorted(state.sizes)
    print_line(console, f"samples  {state.done} of {state.total} opened, {state.faults} with a fault")
    if sizes:
        several = f" to {_by(sizes[-1])} px, {len(sizes)} different" if len(sizes) > 1 else " px"
        print_line(console, f"sizes    {_by(sizes[0])}{several}")
    with usage_errors(ValueError):
        in_two = patients(Path(given.positionals[0]), Path(given.positionals[0])).two_splits
    if in_two:
        print_line(console, _two_splits(in_two))
    for title, counted in (("faults", state.reasons), ("dropped", drops_of(Path(given.positionals[0])))):
        for number, (reason, (count, example)) in enumerate(counted.items()):
            first = f", first {example}" if example else ""
            print_line(console, f"{'' if number else title:7}  {count}  {reason}{first}")
    return 1 if state.faults else 0


def _against(given: Given) -> int:
    """List what two manifests share; 1 if that is anything, else 0."""
    ours, theirs = Path(given.positionals[0]), Path(given.values["against"])
    if not theirs.exists():
        raise UsageError(f"{theirs}: manifest not found{moved_away(theirs)}")
    with quick_imports():
        from cxr_faith.data.overlap import Picture, matches, patients, pictures_of
        from cxr_faith.report.progress import progress_bar
        from cxr_faith.report.terminal import print_line, wide_console

    console = wide_console()
    with usage_errors(ValueError):
        shared = patients(ours, theirs)
        read: list[list[Picture]] = []
        for manifest, option in ((ours, "root"), (theirs, "against_root")):
            root = given.values.get(option)
            count, pictures = pictures_of(manifest, None if root is None else Path(root))
            read.append([])
            with progress_bar(console, manifest.name) as progress:
                for picture in pictures:
                    read[-1].append(picture)
                    progress(len(read[-1]), count)
    same = matches(*read)
    for match in same:
        how = "same file" if match.same_file else f"looks the same ({match.bits} of 255 bits differ)"
        print_line(console, f"{match.image_id}  {match.other_id}  {how}")
    files = sum(match.same_file for match in same)
    print_line(console, f"pictures {len(same)} of {len(read[0])} are in both, {files} as the same file")
    unread = sum(picture.signs is None for pictures in read for picture in pictures)
    if unread:
        print_line(console, f"faults   {unread} pictures cannot be read")
    first = f", first {shared.shared[0]}" if shared.shared else ""
    print_line(console, f"patients {len(shared.shared)} in both{first}")
    print_line(console, _two_splits(shared.two_splits))
    return 1 if same or shared.shared or shared.two_splits else 0


def _two_splits(patients: Mapping[str, Sequence[str]]) -> str:
    name, splits = next(iter(patients.items()), ("", ()))
    first = f", first {name} ({', '.join(splits)})" if splits else ""
    return f"splits   {len(patients)} patient{'s' * (len(patients) != 1)} in two splits{first}"


def read_manifest(command: Command, arguments: list[str]) -> Given:
    """Check the arguments of a command on a manifest.

    Raises:
        UsageError: a wrong argument, or the manifest does not exist.
    """
    given = command.read(arguments)
    if not Path(given.positionals[0]).exists():
        raise UsageError(f"{given.positionals[0]}: manifest not found{moved_away(Path(given.positionals[0]))}")
    return given


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
