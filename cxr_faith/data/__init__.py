"""Samples, the manifest that lists them, their pictures, and the data sets that manifests are made from."""
