"""From records to typed numbers; nothing here draws, prints or runs a model.

`summarize.summarize` turns a run's records into a `Summary`: a `Board` for each setting and slice, and panels that say
how far to trust them. `load.load_run` opens a run directory.

A panel is one file: the class of its numbers, the `COLUMNS` of the records that it reads, and the function that makes
it. To add one, write that file, give `Summary` a field of the class, add the module to `_PANELS` in `summarize.py`, and
call the function in `summarize`.
"""
