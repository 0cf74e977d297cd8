"""The audit dossier: what runs measured, item by item of the documents that reviewers and regulators ask for."""
