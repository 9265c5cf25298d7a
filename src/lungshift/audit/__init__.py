"""What is wrong with a cohort: scans and labels that are not what they should be."""
