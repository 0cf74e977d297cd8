"""One answer and its map as DICOM objects in the film's study. Research output, not for diagnosis."""
