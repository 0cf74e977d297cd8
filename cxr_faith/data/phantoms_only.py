"""What all results say first where the bundled model is asked about pictures that are no drawn phantoms."""

PHANTOMS_ONLY = "The bundled model knows drawn phantoms only: its answers about real pictures mean nothing."
