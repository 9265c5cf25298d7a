"""Files to cases and back: NIfTI, DICOM series, cohort folders and manifests, downloads. The readers live only here."""
